"""A small raw traversal with known colours on a known path, turned into the evaluation layout."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.naming import list_images
from datasets.places import load_image_set
from datasets.robotcar.convert import convert_traversals, link_all, main, select_by_spacing
from datasets.robotcar.raw import demosaic, find_jumps, list_frames, read_track

START_US = 1_416_300_000_000_000
ORIGIN = (620_000.0, 5_735_000.0)
SPEED = np.array([4.0, 3.0])  # metres per second east and north: 5 m/s
SIZE = (64, 48)
INS_HEADER = (
    "timestamp,ins_status,latitude,longitude,altitude,northing,easting,down,utm_zone,"
    "velocity_north,velocity_east,velocity_down,roll,pitch,yaw"
)
RTK_HEADER = INS_HEADER.replace("ins_status,", "")


def mosaic(rgb: np.ndarray) -> np.ndarray:
    """What a GBRG sensor sees of uint8 (H, W, 3): uint8 (H, W)."""
    bayer = np.empty(rgb.shape[:2], np.uint8)
    bayer[::2, ::2], bayer[::2, 1::2] = rgb[::2, ::2, 1], rgb[::2, 1::2, 2]
    bayer[1::2, ::2], bayer[1::2, 1::2] = rgb[1::2, ::2, 0], rgb[1::2, 1::2, 1]
    return bayer


def colour(index: int) -> tuple[int, int, int]:
    """Of the upper part of a frame; the lower quarter, the bonnet, is dark."""
    return 40 + 5 * index, 200 - 3 * index, 60 + 2 * index


def frame(index: int) -> np.ndarray:
    picture = np.full((SIZE[1], SIZE[0], 3), colour(index), np.uint8)
    picture[SIZE[1] * 3 // 4 :] = 10
    return picture


def where(seconds: float) -> np.ndarray:
    return np.array(ORIGIN) + SPEED * seconds


def ins_row(seconds: float, status: str | None = "INS_SOLUTION_GOOD", offset: float = 0.0) -> str:
    east, north = where(seconds) + offset
    status = "" if status is None else status + ","
    return f"{START_US + round(seconds * 1e6)},{status}51.76,-1.26,110,{north:.6f},{east:.6f},-110,30U,3,4,0,0,0,0"


def write_traversal(
    folder: Path,
    frames: int = 30,
    start_s: float = 0.1,
    gap: tuple[float, float] = (0, 0),
    bad: tuple[float, float] = (0, 0),
) -> Path:
    """Two frames a second from `start_s`; INS rows at 4 Hz over 12 s, none within `gap`, of bad status within `bad`."""
    (folder / "stereo" / "centre").mkdir(parents=True)
    (folder / "gps").mkdir()
    lines = []
    for index in range(frames):
        time = START_US + round((start_s + index / 2) * 1e6)
        Image.fromarray(mosaic(frame(index))).save(folder / "stereo" / "centre" / f"{time}.png")
        lines.append(f"{time} 1\n")
    (folder / "stereo.timestamps").write_text("".join(lines))
    rows = [INS_HEADER]
    for seconds in np.arange(0, 12.01, 0.25):
        if not gap[0] < seconds < gap[1]:
            rows.append(ins_row(seconds, "INS_BAD_GPS_AGREE" if bad[0] < seconds < bad[1] else "INS_SOLUTION_GOOD"))
    (folder / "gps" / "ins.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def traversal(tmp_path) -> Path:
    return write_traversal(tmp_path / "2014-11-18-13-20-12", gap=(4.0, 5.0), bad=(8.1, 8.4))


@pytest.fixture
def smooth(tmp_path) -> Path:
    return write_traversal(tmp_path / "2014-12-09-13-21-02", frames=20)


def convert_traversal(traversal: Path, condition: str, out: Path, **options):
    return convert_traversals([traversal], condition, out, **options)[0]


def seconds_of(image: Path) -> float:
    return (int(image.name.split("@")[3]) - START_US) / 1e6


def images(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jpg"), key=lambda image: image.name.split("@")[3])


def test_demosaic_keeps_a_constant_colour_and_ramps():
    for shape in ((8, 10), (7, 9), (2, 2), (960, 1280)):
        flat = np.full((*shape, 3), (200, 100, 50), np.uint8)
        np.testing.assert_array_equal(demosaic(mosaic(flat)), flat)
    rows, columns = np.mgrid[:12, :16]
    ramp = np.stack([10 + 3 * rows + 2 * columns, 200 - 4 * rows - columns, 5 * columns + 2 * rows], -1).astype(
        np.uint8
    )
    np.testing.assert_array_equal(demosaic(mosaic(ramp))[1:-1, 1:-1], ramp[1:-1, 1:-1])


def test_demosaic_is_the_mean_of_the_nearest_pixels_of_a_colour():
    bayer = np.random.default_rng(0).integers(0, 256, (7, 8), np.uint8)
    colours = np.array([[1, 2], [0, 1]])  # GB / RG
    rgb = demosaic(bayer)
    for y in range(7):
        for x in range(8):
            for c in range(3):
                if colours[y % 2, x % 2] == c:
                    assert rgb[y, x, c] == bayer[y, x]
                    continue
                seen = [
                    (abs(dy) + abs(dx), int(bayer[abs(y + dy) if y + dy < 7 else 5, abs(x + dx) if x + dx < 8 else 6]))
                    for dy in (-1, 0, 1)
                    for dx in (-1, 0, 1)
                    if colours[(y + dy) % 2, (x + dx) % 2] == c
                ]
                nearest = [value for distance, value in seen if distance == min(seen)[0]]
                assert rgb[y, x, c] == int(np.mean(nearest) + 0.5)


def test_positions_selection_and_counts(traversal, tmp_path):
    out = tmp_path / "out"
    summary = convert_traversal(traversal, "overcast", out)
    # frames at 0.1, 0.6, ... 14.6 s; 2.5 m apart, so every other one is kept
    times = [0.1 + index / 2 for index in range(30)]
    located = [t for t in times if t <= 12 and not 4 < t < 5 and not 8.0 < t < 8.5]
    assert summary.frames == 30
    assert summary.dropped == {
        "near": len(located) - summary.kept,
        "outside": 6,
        "gap": 2,
        "jump": 0,
        "bad_status": 1,
        "missing": 0,
        "unreadable": 0,
    }
    assert summary.kept == summary.written == len(images(out / "overcast"))
    assert summary.frames == summary.kept + sum(summary.dropped.values())
    last = None
    expected = []
    for t in located:
        if last is None or t - last > 0.999:
            expected.append(t)
            last = t
    assert [seconds_of(image) for image in images(out / "overcast")] == pytest.approx(expected, abs=1e-9)
    loaded = load_image_set([out / "overcast"])
    truth = [where((int(Path(path).name.split("@")[3]) - START_US) / 1e6) for path in loaded.paths]
    np.testing.assert_allclose(loaded.positions, truth, atol=0.00051)
    assert all(len(Path(path).name.split("@")[1].split(".")[1]) == 3 for path in loaded.paths)


def test_colours_and_crop(smooth, tmp_path):
    convert_traversal(smooth, "sun", tmp_path / "whole")
    convert_traversal(smooth, "sun", tmp_path / "cropped", crop_bottom=SIZE[1] // 4)
    for folder, height in (("whole", SIZE[1]), ("cropped", SIZE[1] * 3 // 4)):
        for path in images(tmp_path / folder / "sun"):
            picture = np.asarray(Image.open(path)).astype(int)
            assert picture.shape == (height, SIZE[0], 3)
            index = round((seconds_of(path) - 0.1) * 2)
            assert np.abs(picture[: SIZE[1] // 2] - colour(index)).max() <= 4
            # the last rows, save for what spills over the bonnet's edge
            assert abs(picture[-6:-3].mean() - (10 if folder == "whole" else np.mean(colour(index)))) < 6


def test_colour_frames_are_taken_as_they_are(smooth, tmp_path):
    for index, path in enumerate(sorted((smooth / "stereo" / "centre").iterdir())):
        Image.fromarray(frame(index)).save(path)
    convert_traversal(smooth, "sun", tmp_path / "out")
    picture = np.asarray(Image.open(images(tmp_path / "out" / "sun")[0])).astype(int)
    assert np.abs(picture[: SIZE[1] // 2] - colour(0)).max() <= 4


def test_a_second_run_makes_only_what_is_missing(smooth, tmp_path):
    first = convert_traversal(smooth, "rain", tmp_path / "out")
    made = images(tmp_path / "out" / "rain")
    stamps = {path: path.stat().st_mtime_ns for path in made}
    lost = made[3]
    before = lost.read_bytes()
    lost.unlink()
    again = convert_traversal(smooth, "rain", tmp_path / "out", workers=2)
    assert (again.kept, again.written) == (first.kept, 1)
    assert lost.read_bytes() == before
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items() if path != lost)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.endswith(".part")]


def test_other_settings_do_not_mix_with_what_is_there(smooth, tmp_path):
    convert_traversal(smooth, "rain", tmp_path / "out")
    with pytest.raises(ValueError, match="other settings"):
        convert_traversal(smooth, "rain", tmp_path / "out", spacing_m=10)
    with pytest.raises(ValueError, match="another --crop_bottom"):
        convert_traversal(smooth, "rain", tmp_path / "out", crop_bottom=6)
    # a closer spacing that keeps all there is adds to it
    assert convert_traversal(smooth, "rain", tmp_path / "out", spacing_m=0).kept == 20


def test_all_links_to_every_image(traversal, smooth, tmp_path):
    out = tmp_path / "out"
    convert_traversal(traversal, "overcast", out)
    convert_traversal(smooth, "night", out)
    expected = {f"{c}_{path.name}": path for c in ("overcast", "night") for path in images(out / c)}
    links = {path.name: path for path in (out / "all").iterdir()}
    assert links.keys() == expected.keys()
    for name, link in links.items():
        assert link.is_symlink() and not os.path.isabs(os.readlink(link))
        assert link.resolve() == expected[name].resolve()
    moved = out.rename(tmp_path / "moved")
    assert len(list_images(moved / "all")) == len(expected) == link_all(moved)
    images(moved / "night")[0].unlink()
    assert link_all(moved) == len(expected) - 1 == len(list_images(moved / "all"))


def test_all_without_symbolic_links(smooth, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("not here")

    monkeypatch.setattr(os, "symlink", refuse)
    convert_traversal(smooth, "snow", tmp_path / "hard")
    monkeypatch.setattr(os, "link", refuse)
    convert_traversal(smooth, "snow", tmp_path / "copied")
    for folder, links in (("hard", 2), ("copied", 1)):
        found = list((tmp_path / folder / "all").iterdir())
        assert len(found) == len(images(tmp_path / folder / "snow"))
        assert all(path.stat().st_nlink == links and not path.is_symlink() for path in found)


def frames_of(traversal: Path) -> list[Path]:
    return sorted((traversal / "stereo" / "centre").iterdir())


@pytest.mark.parametrize("links", [True, False])
def test_converting_again_leaves_nothing_stale(smooth, tmp_path, monkeypatch, links):
    def refuse(*_):
        raise OSError("not here")

    if not links:
        monkeypatch.setattr(os, "symlink", refuse)
        monkeypatch.setattr(os, "link", refuse)
    out, frames = tmp_path / "out", frames_of(smooth)
    convert_traversal(smooth, "rain", out, spacing_m=0)
    frames[3].unlink()
    Image.fromarray(mosaic(255 - frame(5))).save(frames[5])
    frames[7].write_bytes(b"damaged")
    (out / "rain" / "@1@2@mine@.jpg").write_bytes(images(out / "rain")[0].read_bytes())
    summary = convert_traversal(smooth, "rain", out, spacing_m=0)
    gone = [f"{frames[index].stem}@.jpg" for index in (3, 7)]
    assert (summary.frames, summary.kept, summary.written) == (20, 18, 1)
    assert [name.split("@", 3)[3] for name in summary.stale] == gone
    assert summary.others == ("rain/@1@2@mine@.jpg",)
    assert "2 of an earlier run moved to OUT/.stale" in str(summary) and "1 others stay" in str(summary)
    left = images(out / "rain")
    assert len(left) == 19 and not any(image.name.endswith(tuple(gone)) for image in left)
    (changed,) = (image for image in left if image.name.endswith(f"{frames[5].stem}@.jpg"))
    seen = np.asarray(Image.open(out / "all" / f"rain_{changed.name}"))[5, 5].astype(int)
    assert np.abs(seen - (255 - np.array(colour(5)))).max() <= 3
    assert {path.name for path in (out / "all").iterdir()} == {f"rain_{image.name}" for image in left}
    again = convert_traversal(smooth, "rain", out, spacing_m=0)
    assert again.written == 0 and not again.stale and again.kept == 18


def test_one_traversal_under_two_conditions_is_refused(smooth, tmp_path):
    convert_traversal(smooth, "rain", tmp_path / "out")
    with pytest.raises(ValueError, match=r"and 9 others.*--condition snow would show them twice"):
        convert_traversal(smooth, "snow", tmp_path / "out")


def test_several_traversals_at_once_or_one_after_another(smooth, tmp_path):
    other = write_traversal(tmp_path / "other", frames=10, start_s=0.3)
    together = convert_traversals([smooth, other, smooth], "sun", tmp_path / "together")
    convert_traversal(smooth, "sun", tmp_path / "apart")
    convert_traversal(other, "sun", tmp_path / "apart")
    names = [path.name for path in images(tmp_path / "together" / "sun")]
    assert names == [path.name for path in images(tmp_path / "apart" / "sun")]
    assert len(together) == 2 and len(names) == sum(summary.kept for summary in together)


def test_rtk_comes_first_and_has_no_status(smooth, tmp_path):
    rows = [RTK_HEADER] + [ins_row(t, None, offset=7.0) for t in np.arange(0, 12.01, 0.25)]
    for place in (smooth, smooth / "gps", smooth / "rtk"):
        place.mkdir(exist_ok=True)
        (place / "rtk.csv").write_text("\n".join(rows) + "\n")
        assert read_track(smooth).file == place / "rtk.csv"
        (place / "rtk.csv").rename(smooth / "kept.csv")
    (smooth / "kept.csv").rename(smooth / "rtk.csv")
    for source, offset in (("auto", 7.0), ("rtk", 7.0), ("ins", 0.0)):
        summary = convert_traversal(smooth, "sun", tmp_path / source, positions=source)
        assert summary.source == ("ins" if source == "ins" else "rtk")
        first = load_image_set([tmp_path / source / "sun"]).positions[0]
        np.testing.assert_allclose(first, where(0.1) + offset, atol=0.00051)


def write_rtk(folder: Path, offset_at, step_s: float = 0.1) -> None:
    """RTK rows over 12 s, each moved by `offset_at(seconds)` metres to the east and north."""
    rows = [ins_row(t, None, offset=offset_at(t)) for t in np.arange(0, 12.01, step_s)]
    (folder / "rtk.csv").write_text("\n".join([RTK_HEADER, *rows]) + "\n")


@pytest.mark.parametrize(
    ("offset_at", "wrong"),
    [
        (lambda t: 40.0 if 3.05 < t < 5.05 else 0.0, (3.0, 5.1)),
        (lambda t: -9.0 if 3.05 < t < 3.15 else 0.0, (3.0, 3.2)),
        (lambda t: 1e4 if t < 2.05 else 0.0, (0.0, 2.1)),
        (lambda t: 40.0 if t > 8.05 else 0.0, (8.0, 99.0)),
        (lambda t: 40.0 * (3.05 < t < 4.05) - 40.0 * (4.05 < t < 5.05), (3.0, 5.1)),
    ],
)
def test_positions_that_no_car_reaches_are_dropped_and_counted(smooth, tmp_path, offset_at, wrong):
    write_rtk(smooth, offset_at)
    summary = convert_traversal(smooth, "rain", tmp_path / "out", spacing_m=0)
    times = [0.1 + index / 2 for index in range(20)]
    sound = [t for t in times if not wrong[0] + 1e-3 < t < wrong[1] - 1e-3]
    found = images(tmp_path / "out" / "rain")
    assert [seconds_of(image) for image in found] == pytest.approx(sound)
    for image in found:
        assert np.array(image.name.split("@")[1:3], float) == pytest.approx(where(seconds_of(image)), abs=2e-3)
    assert summary.dropped["jump"] == len(times) - len(sound) > 0
    assert f"jump {summary.dropped['jump']}" in str(summary)


def test_speeds_that_a_car_reaches_are_no_jumps():
    times = np.arange(0, 100) * 20_000  # 50 Hz
    along = np.stack([times * 30e-6, np.zeros(100)], -1)  # 30 m/s
    noisy = along + np.random.default_rng(0).uniform(-0.7, 0.7, along.shape)
    assert not find_jumps(times, along).any() and not find_jumps(times, noisy).any()
    later = np.concatenate([times, times + 12_000_000])  # a tunnel of 10 s, 400 m on
    assert not find_jumps(later, np.concatenate([along, along + np.array([400, 0])])).any()
    assert find_jumps(later, np.concatenate([along, along + 4000])).sum() == 100
    assert not len(find_jumps(times[:0], along[:0]))


def test_a_time_told_twice_with_two_positions_is_a_jump(smooth):
    with open(smooth / "gps" / "ins.csv", "a") as stream:
        stream.write(ins_row(11.0, offset=40.0) + "\n")
    track = read_track(smooth)
    assert track.good.all() and not track.jumps.any()  # the row that fits the others is kept
    positions, _ = track.locate(np.array([START_US + 11_000_000]), 0.5)
    assert positions[0] == pytest.approx(where(11.0))


def test_a_row_at_the_very_time_of_a_frame_is_enough(tmp_path):
    folder = write_traversal(tmp_path / "exact", frames=3, start_s=0.0)
    (folder / "gps" / "ins.csv").write_text("\n".join([INS_HEADER, ins_row(0), ins_row(0.5, "BAD"), ins_row(1.0)]))
    track = read_track(folder)
    positions, reasons = track.locate(list_frames(folder).times, 0.5)
    assert reasons.tolist() == ["", "bad_status", ""]
    np.testing.assert_array_equal(positions[[0, 2]], [where(0), where(1)])


def test_selection_at_exactly_the_spacing():
    line = np.stack([620_000 + np.arange(0, 12, 0.1), np.full(120, 5_735_000.0)], -1)
    assert select_by_spacing(line, 1.0).tolist() == list(range(0, 120, 10))
    assert len(select_by_spacing(line, 0)) == 120
    line[3] = np.nan
    assert len(select_by_spacing(line, 0)) == 119


def test_missing_and_broken_frames_are_counted(smooth, tmp_path, capsys):
    frames = sorted((smooth / "stereo" / "centre").iterdir())
    frames[0].write_bytes(frames[0].read_bytes()[:60])
    frames[-1].unlink()
    (smooth / "stereo" / "centre" / "._junk.png").write_bytes(b"x")
    summary = convert_traversal(smooth, "sun", tmp_path / "out", spacing_m=0)
    assert (summary.frames, summary.kept) == (20, 18)
    assert summary.dropped["missing"] == summary.dropped["unreadable"] == 1
    assert str(frames[0]) in capsys.readouterr().err


def spoil(change):
    """A traversal with one fault, and what the message must name."""
    return pytest.param(change, id=change.__name__.strip("_"))


def _no_frames(folder: Path) -> str:
    for path in (folder / "stereo" / "centre").iterdir():
        path.unlink()
    return "stereo/centre: no frame"


def _no_track(folder: Path) -> str:
    (folder / "gps" / "ins.csv").unlink()
    return "unpack the gps archive"


def _odd_frame_name(folder: Path) -> str:
    (folder / "stereo" / "centre" / "photo.png").touch()
    return "photo.png"


def _other_header(folder: Path) -> str:
    (folder / "gps" / "ins.csv").write_text("a,b\n1,2\n")
    return "lacks timestamp"


def _twenty_digits(folder: Path) -> str:
    (folder / "stereo" / "centre" / f"{'9' * 20}.png").touch()
    return "99999.png: the name of a frame"


def _leading_zero(folder: Path) -> str:
    (folder / "stereo" / "centre" / "0123.png").touch()
    return "0123.png: the name of a frame"


def _twenty_digits_listed(folder: Path) -> str:
    with open(folder / "stereo.timestamps", "a") as stream:
        stream.write("9" * 20 + " 1\n")
    return "stereo.timestamps:21"


def _append(row: str):
    def change(folder: Path) -> str:
        with open(folder / "gps" / "ins.csv", "a") as stream:
            stream.write(row + "\n")
        return "ins.csv:51"

    return change


def _quote_at(line: int, rest: str = ""):
    def change(folder: Path) -> str:
        file = folder / "gps" / "ins.csv"
        lines = file.read_text().splitlines()
        lines[line] = lines[line].replace(",INS", ',"INS') + rest
        file.write_text("\n".join(lines) + "\n")
        return "ins.csv:"

    return change


def _binary(folder: Path) -> str:
    file = folder / "gps" / "ins.csv"
    file.write_bytes(file.read_bytes()[:900] + bytes(range(256)) * 4)
    return "ins.csv:"


def _half_a_row(folder: Path) -> str:
    with open(folder / "gps" / "ins.csv", "a") as stream:
        stream.write("14163000,INS_SOLUTION_GOOD,51.7,")
    return "ins.csv:51"


def _not_a_number(folder: Path) -> str:
    with open(folder / "gps" / "ins.csv", "a") as stream:
        stream.write(ins_row(13).replace("30U", "30U").replace(f"{where(13)[0]:.6f}", "nan") + "\n")
    return "ins.csv:51"


def _two_zones(folder: Path) -> str:
    with open(folder / "gps" / "ins.csv", "a") as stream:
        stream.write(ins_row(13).replace("30U", "31U") + "\n")
    return "zone 31U after 30U"


def _another_time(folder: Path) -> str:
    (folder / "gps" / "ins.csv").write_text("\n".join([INS_HEADER, ins_row(1e6), ins_row(1e6 + 1)]))
    return "another traversal"


def _only_bad_rows(folder: Path) -> str:
    (folder / "gps" / "ins.csv").write_text("\n".join([INS_HEADER, ins_row(0, "INS_INACTIVE")]))
    return "no row with a position"


def _bad_timestamps(folder: Path) -> str:
    (folder / "stereo.timestamps").write_text("<html>\n")
    return "stereo.timestamps:1"


def _another_mode(folder: Path) -> str:
    first = min((folder / "stereo" / "centre").iterdir())
    Image.new("RGBA", SIZE).save(first)
    return "mode is RGBA"


FAULTS = (
    _no_frames, _no_track, _odd_frame_name, _other_header, _half_a_row, _not_a_number, _two_zones, _another_time,
    _only_bad_rows, _bad_timestamps, _another_mode, _twenty_digits, _leading_zero, _twenty_digits_listed, _binary,
)  # fmt: skip


DAMAGED_ROWS = {
    "unclosed quote": _quote_at(20),
    "quote in the last row": _quote_at(49),
    "quote and a field that is too long": _quote_at(20, "x" * 200_000),
    "time of 20 digits": _append(ins_row(13).replace(str(START_US), "9" * 20).replace("14163", "9" * 16, 1)),
    "negative time": _append("-" + ins_row(13)),
    "a field too many": _append(ins_row(13) + ",1"),
    "a field less": _append(ins_row(13).rsplit(",", 1)[0]),
    "an absurd position": _append(ins_row(13).replace("57350", "1e300")),
}


@pytest.mark.parametrize(
    "change", [*map(spoil, FAULTS), *(pytest.param(change, id=name) for name, change in DAMAGED_ROWS.items())]
)
def test_bad_input_is_one_line(smooth, tmp_path, capsys, change):
    named = change(smooth)
    status = main(["--traversal", str(smooth), "--condition", "sun", "--out", str(tmp_path / "out"), "--workers", "1"])
    error = capsys.readouterr().err
    assert status == 2
    assert error.count("\n") == 1 and named in error and error.startswith("datasets.robotcar: error: ")


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--condition", "fog"], "--condition"),
        (["--spacing_m", "-1"], "--spacing_m"),
        (["--spacing_m", "nan"], "--spacing_m"),
        (["--crop_bottom", "48"], "--crop_bottom 48"),
        (["--crop_bottom", "-1"], "--crop_bottom"),
        (["--workers", "0"], "--workers"),
        (["--positions", "rtk"], "--positions ins"),
        (["--traversal", "nowhere"], "nowhere/stereo/centre"),
    ],
)
def test_bad_flags_are_one_line(smooth, tmp_path, capsys, flags, named):
    argv = ["--traversal", str(smooth), "--condition", "sun", "--out", str(tmp_path / "out"), *flags]
    try:
        status = main(argv)
    except SystemExit as leaving:
        status = leaving.code
    error = capsys.readouterr().err
    assert status == 2 and named in error and error.count("\n") == 1


def test_command_line_in_a_process_of_its_own(smooth, tmp_path):
    root = Path(__file__).parents[3]
    command = [sys.executable, "-m", "datasets.robotcar", "--traversal", str(smooth), "--condition", "sun"]
    run = subprocess.run(
        [*command, "--out", str(tmp_path / "out"), "--workers", "2"], cwd=root, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "20 frames, 10 kept (10 new), dropped: near 10" in run.stdout
    assert len(list_images(tmp_path / "out" / "all")) == 10
