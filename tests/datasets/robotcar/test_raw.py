"""Frames, tracks and colours of a raw traversal."""

import numpy as np
import pytest

from datasets.places import load_image_set
from datasets.robotcar.bayer import demosaic
from datasets.robotcar.raw import find_jumps, list_frames, read_track
from tests.datasets.robotcar.traversals import (
    INS_HEADER,
    RTK_HEADER,
    START_US,
    convert_traversal,
    images,
    ins_row,
    mosaic,
    seconds_of,
    where,
    write_rtk,
    write_traversal,
)


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
