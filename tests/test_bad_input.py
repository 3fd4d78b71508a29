"""Each kind of bad input: one line with the file or the flag, status 2, and with --on_bad_image skip a run all the same."""

import json
import os
import pickle
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import eval as evaluation_script
import main
from models import build_model
from tests.tiny import SMALL_RUN, data_flags
from utils.options.evaluation_sets import evaluation_sets
from utils.options.parsers import eval_parser
from utils.retrieval.screening import Screening
from utils.runs.checkpoints import save_checkpoint

REMEDY = re.compile(
    r"(;|:|\?|\(or|,) (or )?(\S+ it, or )?(name|give|replace|resize|remove|rename|add|use|run|move|correct|leave|raise|try)\b"
)
"""What the user may do about it, in every message."""

FRONT, LABELS = "idda/town10/gallery/front_rear/front", "idda/town10/gallery_labels/front_rear/front"


@pytest.fixture
def data(tiny_root, tmp_path, monkeypatch) -> Path:
    """A copy of the tiny data that a test may damage, in the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_root, "data")
    return Path("data")


def first(folder: Path, pattern: str = "*.png") -> Path:
    return sorted(folder.glob(pattern))[0]


def train(data: Path, *changes: str) -> int:
    return main.main([*data_flags(data), *SMALL_RUN, "--n_epochs", "1", *changes])


def only_error(capsys) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    errors = [line for line in lines if "error:" in line]
    assert len(errors) == 1 and not any(word in line for line in lines for word in ("Traceback", "Warning"))
    assert REMEDY.search(errors[0]), f"no remedy: {errors[0]}"
    return errors[0]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def make(mode: str, size=(136, 128), value=0):
    return lambda path: Image.new(mode, size, value).save(path)


def bomb(path: Path) -> None:
    """A PNG whose header promises 30000x30000 pixels."""
    import struct
    import zlib

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b""))
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def dangle(path: Path) -> None:
    path.unlink()
    os.symlink("gone.png", path)


IMAGE_FAULTS = {
    "truncated": (truncate, "cannot decode"),
    "empty": (lambda path: path.write_bytes(b""), "cannot decode"),
    "text": (lambda path: path.write_text("not an image"), "not an image"),
    "bomb": (bomb, "cannot decode"),
    "dangling": (dangle, "cannot decode"),
    "small": (make("RGB", (90, 90)), "90x90 px"),
}
LABEL_FAULTS = {
    "missing": (Path.unlink, "label missing"),
    "other size": (make("RGBA", (136, 120)), "136x120 px"),
    "single channel": (make("L"), "mode is L"),
    "unknown id": (make("RGBA", value=(30, 0, 0, 255)), "raw id 30"),
}


@pytest.mark.parametrize("fault", IMAGE_FAULTS)
@pytest.mark.parametrize("where", [FRONT, "robotcar/rain"])
def test_an_image_that_cannot_be_used(data, capsys, fault, where):
    damage, reason = IMAGE_FAULTS[fault]
    victim = first(data / where)
    damage(victim)
    # test sets are read after training, so no epoch is needed for them
    assert train(data, "--n_epochs", "1" if where == FRONT else "0") == 2
    error = only_error(capsys)
    assert victim.name in error and reason in error


@pytest.mark.parametrize("fault", LABEL_FAULTS)
def test_a_label_that_cannot_be_used(data, capsys, fault):
    damage, reason = LABEL_FAULTS[fault]
    victim = first(data / LABELS)
    damage(victim)
    assert train(data, "--queries_per_epoch", "24", "--cache_refresh_rate", "12") == 2
    error = only_error(capsys)
    assert victim.name in error and reason in error


def test_bad_files_are_left_out_on_request(data, capsys):
    images, labels, rain = sorted((data / FRONT).glob("*")), sorted((data / LABELS).glob("*")), data / "robotcar/rain"
    truncate(first(rain))
    (rain / "holiday.png").write_bytes(first(data / "robotcar/sun").read_bytes())
    # the queries of a place that is gone have no positive, so a second picture stands 1 m beside each
    for source, folder in ((images[0], data / FRONT), (labels[0], data / LABELS)):
        fields = source.name.split("@")
        fields[1] = f"{float(fields[1]) + 1:.3f}"
        shutil.copy(source, folder / "@".join(fields))
    LABEL_FAULTS["unknown id"][0](labels[0])
    assert train(data, "--on_bad_image", "skip", "--n_epochs", "0") == 0
    captured = capsys.readouterr()
    left_out = [line for line in captured.err.splitlines() if "left out:" in line]
    assert len(left_out) == 3 and "3 files were left out" in captured.out
    (folder,) = Path("runs/default").iterdir()
    sets = {s["name"]: s for s in json.loads((folder / "results.json").read_text())["sets"]}
    assert sets["rain"]["num_queries"] == 5 and sets["sun"]["num_queries"] == 6


@pytest.mark.parametrize("name", ["@1@2.png", "plain.png", "@a@b@.png", "@inf@1@.png", "@5735000.0@620000.0@.png"])
def test_a_name_without_position(data, capsys, name):
    first(data / FRONT).rename(data / FRONT / name)
    assert train(data) == 2
    error = only_error(capsys)
    assert name in error and "--dataset_root" in error and "@UTM_east@UTM_north@" in error


def test_folders_missing_or_empty(data, capsys):
    shutil.rmtree(data / "robotcar/snow")
    assert train(data) == 2
    assert "--dataset_root_test: data/robotcar/snow: no such folder" in only_error(capsys)
    (data / "robotcar/snow").mkdir()
    assert train(data) == 2
    assert "data/robotcar/snow: no image in it" in only_error(capsys)


def test_two_sizes_in_the_training_set(data, capsys):
    victim = sorted((data / FRONT).glob("*"))[2]
    make("RGB", (140, 128))(victim)
    assert train(data) == 2
    error = only_error(capsys)
    assert victim.name in error and first(data / FRONT).name in error and "one size per data set" in error


def test_no_negative_for_a_query(data, capsys):
    for folder in ("gallery", "gallery_labels", "queries_rain", "queries_labels_rain"):
        for camera in ("front", "rear"):
            for file in sorted((data / "idda/town10" / folder / "front_rear" / camera).glob("*"))[1:]:
                file.unlink()
    assert train(data) == 2
    assert "no gallery image is farther than 25 m" in only_error(capsys)


def test_too_few_target_images(data, capsys):
    for file in sorted((data / "robotcar").rglob("*.png"))[4:]:
        file.unlink()
    assert main.main([*data_flags(data), *SMALL_RUN, "--DA_datasets", "data/robotcar"]) == 2
    assert "has 4 images, but a step takes 6" in only_error(capsys)


def test_a_folder_that_cannot_be_written(data, capsys):
    Path("runs").write_text("a file in the way")
    assert train(data) == 2
    assert "--exp_name default: cannot make runs/default" in only_error(capsys)
    Path("runs").unlink()
    save_checkpoint(Path("c.pth"), build_model("resnet18"), {})
    Path("out").write_text("a file in the way")
    for folder in ("out", "here"):
        Path("here/log.txt").mkdir(parents=True, exist_ok=True)
        assert evaluation_script.main(["--resume", "c.pth", "--output_dir", folder]) == 2
        assert f"--output_dir {folder}: cannot make it, or write there" in only_error(capsys)


@pytest.mark.parametrize(
    "config, reason",
    [({"arch": "resnet18", "num_classes": 20}, "20 classes"), ({"arch": "resnet18", "semnet": "pspnet"}, "pspnet")],
)
def test_a_checkpoint_of_another_network(data, capsys, config, reason):
    model = build_model(**config)
    save_checkpoint(Path("c.pth"), model, {})
    assert train(data, "--resume", "c.pth") == 2
    error = only_error(capsys)
    assert "c.pth" in error and reason in error


class Code:
    """A pickle of this would run code."""

    def __reduce__(self):
        return os.mkdir, ("the_code_ran",)


def old_format(path: Path) -> None:
    torch.save({"state_dict": Code()}, path, _use_new_zipfile_serialization=False)


NO_CHECKPOINTS = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("hello"),
    "a list": lambda path: torch.save([1], path),
    "other weights": lambda path: torch.save({"a": torch.zeros(3)}, path),
    "plain pickle": lambda path: path.write_bytes(pickle.dumps(Code())),
    "code, old format": old_format,
    "code": lambda path: torch.save({"state_dict": Code()}, path),
    "a folder": Path.mkdir,
}


@pytest.mark.parametrize("what", NO_CHECKPOINTS)
def test_what_is_no_checkpoint_is_named_by_both_commands(tmp_path, monkeypatch, capsys, what):
    monkeypatch.chdir(tmp_path)
    NO_CHECKPOINTS[what](Path("odd.pth"))
    for command in (main.main, evaluation_script.main):
        assert command(["--resume", "odd.pth", "--device", "cpu"]) == 2
        error = only_error(capsys)
        assert "odd.pth" in error and "weights_only" not in error
        assert ("would run code" in error) == ("code" in what)
    assert not Path("the_code_ran").exists()


@pytest.mark.parametrize("stages", [[], ["4", "3"], ["3", "3"], ["0", "4"], ["5"]])
def test_stages_that_cannot_be_pooled(data, capsys, stages):
    assert train(data, "--scale_indexes", *stages) == 2
    assert "scale_indexes: " in only_error(capsys)


def test_images_of_every_mode_are_decoded(data):
    images = sorted((data / FRONT).glob("*"))
    for image, mode in zip(images, ("L", "P", "I;16", "RGBA", "CMYK")):
        grey = Image.fromarray(np.full((128, 136), 90, np.uint8))
        picture = Image.fromarray(np.full((128, 136), 23000, np.uint16)) if mode == "I;16" else grey.convert(mode)
        picture.save(image.with_suffix(".jpg") if mode == "CMYK" else image)
        if mode == "CMYK":
            image.unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    images[5].unlink()
    Image.new("RGB", (128, 136)).save(images[5].with_suffix(".jpg"), exif=exif)
    short = "--queries_per_epoch 4 --n_epochs 1 --da_method none".split()  # mining reads the whole gallery
    assert main.main([*data_flags(data)[:2], *SMALL_RUN, *short]) == 0


def test_no_image_with_a_valid_name(data, capsys):
    for number, file in enumerate(sorted((data / "robotcar/rain").iterdir())):
        file.rename(file.with_name(f"holiday{number}.png"))
    assert train(data, "--on_bad_image", "skip") == 2
    assert "data/robotcar/rain: none of its 6 images is named @UTM_east@UTM_north@" in only_error(capsys)


def test_links_and_odd_bytes_in_names(data):
    front = data / FRONT
    os.symlink(front.resolve(), front / "loop")
    victim = os.fsencode(first(data / "robotcar/rain"))
    os.rename(victim, victim[:-5] + b"\xff@.png")
    assert train(data, "--n_epochs", "0") == 0
    (folder,) = Path("runs/default").iterdir()
    assert b"\xff@.png" in (folder / "predictions/rain.csv").read_bytes()


def test_a_worker_that_dies_names_its_file(data, monkeypatch, capsys):
    from datasets.reading import batches as loading

    victim = str(first(data / "robotcar/rain"))
    original = loading.read_image

    def deadly(path):
        if path == victim:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(path)

    monkeypatch.setattr(loading, "read_image", deadly)
    save_checkpoint(Path("c.pth"), build_model("resnet18"), {})
    command = ["--resume", "c.pth", "--dataset_root_test", "data/robotcar", "--test_q", "rain", "--test_g", "overcast"]
    assert evaluation_script.main([*command, "--num_workers", "1", "--device", "cpu"]) == 1
    error = only_error(capsys)
    assert victim in error and "--num_workers" in error


def test_all_zero_and_infinite_descriptors_name_the_file(data, monkeypatch, capsys):
    model = build_model("resnet18")
    save_checkpoint(Path("c.pth"), model, {})
    command = ["--resume", "c.pth", "--dataset_root_test", "data/robotcar", "--num_workers", "0", "--device", "cpu"]
    for value, what in ((0.0, "all zero"), (torch.inf, "not finite")):
        monkeypatch.setattr("models.segvpr.SegVPR.embed", lambda self, x, v=value: torch.full((len(x), 768), v))
        assert evaluation_script.main(command) == 2
        error = only_error(capsys)
        assert what in error and first(data / "robotcar/overcast").name in error and "6 of 6" in error


def test_a_gallery_with_a_bad_image_is_still_read_once_for_all_its_query_sets(data):
    truncate(first(data / "robotcar/overcast"))
    args = eval_parser().parse_args(["--resume", "x.pth", "--dataset_root_test", str(data / "robotcar")])
    screening = Screening("skip")
    sets = evaluation_sets(args, screening)
    assert [len(s.gallery) for s in sets] == [5] * 4 and len({id(s.gallery) for s in sets}) == 1
    assert len(screening.rejected) == 1
