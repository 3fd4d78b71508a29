"""A raw traversal turned into the evaluation layout."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.naming import list_images
from datasets.places import load_image_set
from datasets.robotcar.convert import convert_traversals, link_all, select_by_spacing
from tests.datasets.robotcar.traversals import (
    SIZE,
    START_US,
    colour,
    convert_traversal,
    frame,
    frames_of,
    images,
    mosaic,
    seconds_of,
    where,
    write_traversal,
)


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


def test_command_line_in_a_process_of_its_own(smooth, tmp_path):
    root = Path(__file__).parents[3]
    command = [sys.executable, "-m", "datasets.robotcar", "--traversal", str(smooth), "--condition", "sun"]
    run = subprocess.run(
        [*command, "--out", str(tmp_path / "out"), "--workers", "2"], cwd=root, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "20 frames, 10 kept (10 new), dropped: near 10" in run.stdout
    assert len(list_images(tmp_path / "out" / "all")) == 10
