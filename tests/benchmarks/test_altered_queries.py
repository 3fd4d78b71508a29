"""Altered copies of queries: names and sizes stay, copies repeat, each kind does what its name says."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.altered_queries import KINDS, altered, main


def photo(width: int = 64, height: int = 48) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture()
def queries(tmp_path):
    folder = tmp_path / "queries" / "part"
    folder.mkdir(parents=True)
    photo().save(folder / "@1.5@2@a@.jpg", quality=95)
    photo(40, 50).save(folder / "@3@4@b@.png")
    return tmp_path / "queries"


def test_each_kind_gets_a_folder_with_the_queries_names_and_sizes(queries, tmp_path):
    out = tmp_path / "out"
    assert main(["--queries", str(queries), "--out", str(out), "--gallery", str(queries)]) == 0
    for kind in KINDS:
        copies = sorted((out / kind).rglob("*.*"))
        assert [c.relative_to(out / kind).as_posix() for c in copies] == ["part/@1.5@2@a@.jpg", "part/@3@4@b@.png"]
        assert [Image.open(c).size for c in copies] == [(64, 48), (40, 50)]
    for folder in ("clean", "gallery"):
        linked = out / folder / "part/@1.5@2@a@.jpg"
        assert linked.read_bytes() == (queries / "part/@1.5@2@a@.jpg").read_bytes()


def test_each_second_photo_alone(queries, tmp_path):
    assert main(["--queries", str(queries), "--out", str(tmp_path / "out"), "--every", "2"]) == 0
    for kind in ("clean", *KINDS):
        assert [path.name for path in (tmp_path / "out" / kind).rglob("*.*")] == ["@1.5@2@a@.jpg"]


def test_copies_of_other_photos_are_not_mixed_in(queries, tmp_path, capsys):
    command = ["--queries", str(queries), "--out", str(tmp_path / "out"), "--kinds", "grey"]
    assert main(command) == 0 and main([*command, "--every", "2"]) == 2
    assert "grey holds other photos; give another folder" in capsys.readouterr().err


def test_copies_repeat_whatever_else_is_made_and_follow_the_seed(queries, tmp_path):
    for name, flags in {"a": [], "b": ["--kinds", "noisy"], "c": ["--seed", "1", "--kinds", "noisy"]}.items():
        assert main(["--queries", str(queries), "--out", str(tmp_path / name), *flags]) == 0
    a, b, c = ((tmp_path / n / "noisy/part/@3@4@b@.png").read_bytes() for n in "abc")
    assert a == b and a != c


def test_kinds_do_what_their_names_say():
    day = np.asarray(photo(), float)
    x = {kind: np.asarray(altered(photo(), kind, "name"), float) for kind in KINDS}
    assert x["dark"].mean() < 0.4 * day.mean() and x["night"].mean() < 0.6 * day.mean()
    assert np.ptp(x["grey"], axis=-1).max() == 0
    edges = {kind: np.abs(np.diff(pixels, axis=1)).mean() for kind, pixels in {"day": day, **x}.items()}
    assert edges["blurred"] < edges["day"] < edges["noisy"]
    assert x["fog"].std() < 0.6 * day.std() and x["fog"].mean() > day.mean()
    assert 20 < (x["noisy"] - day).std() < 45


def test_two_pictures_get_noise_of_their_own():
    assert altered(photo(), "noisy", "a").tobytes() != altered(photo(), "noisy", "b").tobytes()


def test_bad_input_is_one_line_and_status_two(queries, tmp_path, capsys):
    (queries / "part/@5@6@c@.jpg").write_bytes(b"no image")
    assert main(["--queries", str(queries), "--out", str(tmp_path / "out")]) == 2
    assert main(["--queries", str(tmp_path / "absent"), "--out", str(tmp_path / "out")]) == 2
    assert main(["--queries", str(queries), "--out", str(queries / "below")]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 3
    assert "@5@6@c@.jpg: cannot decode" in lines[0] and "absent: no such folder" in lines[1] and "--out" in lines[2]
    for flags in (["--kinds", "rain"], ["--seed", "-1"], ["--workers", "0"]):
        with pytest.raises(SystemExit) as stop:
            main(["--queries", str(queries), "--out", str(tmp_path / "out"), *flags])
        assert stop.value.code == 2
