"""The style sheet of the report: phone first, light and dark."""

STYLE = """
:root{--bg:#f4f5f7;--card:#fff;--ink:#1d2126;--muted:#59616b;--line:#e3e6ea;--accent:#0072b2;--tint:#dcebf6;
--found:#009e73;--missed:#cc3311;--found-text:#00714f;--missed-text:#b32a0b;--mark:#fff;--gone:#d8dbe0}
@media (prefers-color-scheme:dark){:root{--bg:#111418;--card:#1a1e24;--ink:#e9ebee;--muted:#a5adb8;--line:#323942;
--accent:#56b4e9;--tint:#1d3a52;--found:#1fc795;--missed:#ff7557;--found-text:#1fc795;--missed-text:#ff7557;
--mark:#0b0d10;--gone:#39404a}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
@media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
overflow-wrap:anywhere}
header,nav,main,footer{max-width:1240px;margin:0 auto;padding-left:16px;padding-right:16px}
header{padding-top:28px}
h1{font-size:clamp(1.45rem,1rem + 2vw,2.1rem);line-height:1.2;margin:.1em 0 .45em;letter-spacing:-.01em;text-wrap:balance}
h2{font-size:1.25rem;line-height:1.25;margin:0 0 14px}
p{margin:0 0 12px;max-width:76ch}
code{font:.9em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.eyebrow{color:var(--accent);font-weight:600;margin:0}
.facts{color:var(--muted);margin:0}
nav{display:flex;flex-wrap:wrap;gap:4px 18px;padding-top:14px;padding-bottom:14px}
a{color:var(--accent);text-underline-offset:3px;padding:4px 0}
section{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:18px 14px;margin:0 0 16px;
scroll-margin-top:12px}
footer{color:var(--muted);font-size:.875rem;padding-top:6px;padding-bottom:40px}
table{border-collapse:collapse;width:100%;table-layout:fixed;font-variant-numeric:tabular-nums}
caption,figcaption,.note{color:var(--muted);font-size:.875rem;text-align:left}
caption{padding-bottom:8px}
th,td{padding:9px 0 9px 6px;text-align:right;border-top:1px solid var(--line);vertical-align:top;font-weight:400}
thead th{border:0;color:var(--muted);font-size:.875rem;padding-top:0;padding-bottom:4px}
th:first-child{text-align:left;padding-left:0}
thead th:not(:first-child){width:3.05rem}
tbody th{font-weight:600}
th small{display:block;color:var(--muted);font-weight:400;font-size:.8125rem;line-height:1.35}
td{background:linear-gradient(90deg,var(--accent) var(--v),var(--line) 0) right 0 top 36px/calc(100% - 8px) 3px
no-repeat}
td.first{font-weight:700}
.miou{margin:16px 0 0}
.miou b{font-size:1.25rem}
figure{margin:0}
img{display:block;max-width:100%;height:auto}
.plot img{width:100%;max-width:470px;margin:0 auto}
.plot.scroll{overflow-x:auto}
.plot.scroll img{min-width:520px;max-width:600px}
.plot figcaption{padding-top:4px}
.beside:not(:last-child){margin-bottom:18px}
.beside,.plots{display:grid;gap:22px 28px;grid-template-columns:minmax(0,1fr);align-items:start}
details{border-top:1px solid var(--line)}
details:last-child{margin-bottom:-10px}
summary{cursor:pointer;padding:12px 0;list-style-position:outside;margin-left:18px}
summary span{color:var(--muted)}
summary:focus-visible,a:focus-visible{outline:3px solid var(--accent);outline-offset:2px;border-radius:4px}
.case{padding:4px 0 22px}
.case figcaption{padding-bottom:8px;line-height:1.35}
.case figcaption b{display:block;font-size:1rem}
b.found{color:var(--found-text)}
b.missed{color:var(--missed-text)}
.tiles{display:grid;gap:12px 8px;grid-template-columns:repeat(3,minmax(0,1fr));align-items:start}
.tile.query{grid-column:1/-1}
.tile p{font-size:.8125rem;line-height:1.3;margin:5px 0 0;color:var(--muted)}
.tile b{color:var(--ink);display:block}
.frame{position:relative;border-radius:8px;overflow:hidden;background:var(--gone)}
.frame img{width:100%}
.tile.found .frame,.tile.missed .frame{border:4px solid var(--found)}
.tile.missed .frame{border-color:var(--missed)}
.mark{position:absolute;left:0;top:0;width:22px;height:21px;border-radius:0 0 8px 0;background:var(--found);color:var(--mark);
font-weight:700;font-size:15px;line-height:18px;text-align:center}
.missed .mark{background:var(--missed)}
.gone{display:grid;place-items:center;aspect-ratio:16/9;font-size:.8125rem;color:var(--ink);text-align:center;padding:4px}
.tiles.views{grid-template-columns:repeat(2,minmax(0,1fr))}
.views.n3 .tile:first-child{grid-column:1/-1}
.views.n4 .tile:nth-child(2),.views.n4 .tile:nth-child(3){order:1}
.key{display:flex;flex-wrap:wrap;align-items:center;gap:4px 8px;font-size:.875rem;color:var(--muted);margin-bottom:10px}
.key img{border-radius:3px;max-width:44vw}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 16px;margin:0 0 16px;padding:0;font-size:.875rem}
.legend i{display:inline-block;width:14px;height:14px;border-radius:3px;margin-right:6px;vertical-align:-2px;
border:1px solid var(--muted)}
@media (min-width:700px){
section{padding:24px 26px}
.plots{grid-template-columns:repeat(2,minmax(0,1fr))}
.tiles{grid-template-columns:1.45fr repeat(5,minmax(0,1fr)) minmax(0,1fr);gap:14px}
.tile.query{grid-column:auto}
.tile.truth{grid-column:7;position:relative}
.tile.truth::before{content:"";position:absolute;left:-8px;top:0;bottom:0;border-left:1px solid var(--muted);opacity:.5}
.tiles.views{grid-template-columns:repeat(4,minmax(0,1fr))}
.tiles.views.n3{grid-template-columns:repeat(3,minmax(0,1fr))}
.views.n3 .tile:first-child{grid-column:auto}
.views.n4 .tile:nth-child(n){order:0}
.tile p{margin-top:6px}
thead th:not(:first-child){width:4rem}
.case figcaption{display:flex;gap:2px 14px;flex-wrap:wrap;align-items:baseline}
}
@media (min-width:1000px){
.beside{grid-template-columns:minmax(0,1.15fr) minmax(0,1fr)}
.plots{grid-template-columns:repeat(3,minmax(0,1fr))}
.plots.two{grid-template-columns:repeat(2,minmax(0,1fr))}
}
@media print{:root{--bg:#fff}section{break-inside:auto;border:0;padding:0}nav{display:none}.case{break-inside:avoid}}
"""
