"""Damaged traversals and bad flags: one line, status 2."""

from pathlib import Path

import pytest
from PIL import Image

from datasets.robotcar.__main__ import main
from tests.datasets.robotcar.traversals import INS_HEADER, SIZE, START_US, ins_row, where


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
