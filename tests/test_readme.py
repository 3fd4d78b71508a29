"""Every command and every Python block of the README, run on tiny data (set-up and benchmarks: their flags are read)."""

import importlib
import importlib.util
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import eval as evaluation_script
import main
from tests.datasets.robotcar.test_robotcar import write_traversal
from tests.tiny import SMALL_RUN, write_pass
from utils.options.parsers import export_parser, serve_parser

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SMALL = {
    "main.py": [*SMALL_RUN, *"--n_epochs 1 --queries_per_epoch 4".split()],
    "eval.py": ["--eval_scale", "1", "--num_workers", "0", "--device", "cpu", "--no_report"],
    "datasets.town": ["--size", "124", "122", "--places", "4", "--workers", "1"],
    "datasets.check": ["--workers", "1"],
    "datasets.robotcar": ["--workers", "1"],
    "datasets.convert": ["--workers", "1"],
}


def commands() -> list[str]:
    """All `python3 ...` commands of code blocks and inline code, continued lines joined."""
    joined = README.replace("\\\n", " ")
    found = re.findall(r"^python3 .*$", joined, re.MULTILINE) + re.findall(r"`(python3 [^`]*)`", joined)
    return [" ".join(command.split("  #")[0].split()) for command in dict.fromkeys(found)]


@pytest.fixture
def places(tiny_root, trained_run, tmp_path, monkeypatch) -> dict[str, str]:
    """What the README's placeholders stand for, in the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_root / "idda/town3/gallery", "photos")
    write_traversal(tmp_path / "raw", frames=20)
    checkpoint = shutil.copy(trained_run / "best.pth", tmp_path)  # descriptors are kept beside it
    names = np.array([f"@{100 * i}@0@.jpg" for i in range(3)])
    np.savez("method.npz", gallery=np.eye(3), queries=np.eye(3), gallery_paths=names, query_paths=names)
    for i in range(6):
        write_pass(tmp_path / "images" / ("train", "val", "test")[i // 2] / ("database", "queries")[i % 2], 4, i)
    return {
        "<IDDAv2>": str(tiny_root / "idda"),
        "<RobotCar images>": str(tiny_root / "robotcar"),
        "<RobotCar>": str(tiny_root / "robotcar"),
        "--descriptors method.npz": f"--descriptors {tmp_path / 'method.npz'}",
        "<images>": str(tmp_path / "images"),
        "pretrained/": f"{ROOT}/pretrained/",
        "<checkpoint>": str(checkpoint),
        "--traversal DIR": "--traversal raw",
        "--images DIR": "--images photos",
        "--out DIR": "--out converted",
        "runs/segvpr": str(trained_run),
        "check ROOT": f"check {tiny_root / 'robotcar'}",
        "--out ROOT": "--out robotcar",
        "--gallery DIR": f"--gallery {tiny_root / 'robotcar/overcast'}",
        "--localize PHOTO": f"--localize {tiny_root / 'robotcar/rain'}",
    }


def run(command: str) -> int:
    words = shlex.split(command)[1:]
    name = words[1] if words[0] == "-m" else words[0]
    flags = words[2:] if words[0] == "-m" else words[1:]
    if name == "utils.serve":  # not run: serves until it is stopped
        serve_parser().parse_args(flags)
        return 0
    if name.startswith("benchmarks."):  # not run: takes minutes
        importlib.import_module(name).build_parser().parse_args(flags)
        return 0
    if name == "utils.export" and importlib.util.find_spec("onnx") is None:
        export_parser().parse_args(flags)
        return 0
    if "--help" in flags:
        with pytest.raises(SystemExit) as stop:
            {"main.py": main, "eval.py": evaluation_script}[name].main(flags)
        return stop.value.code
    small = SMALL.get(name, [])
    if importlib.util.find_spec(name.removesuffix(".py")).submodule_search_locations:
        name += ".__main__"
    script = {"main.py": main, "eval.py": evaluation_script}.get(name) or importlib.import_module(name)
    return script.main([*flags, *small])


def test_every_command_runs(places):
    listed = commands()
    assert len(listed) >= 8
    training = next(command for command in listed if command.startswith("python3 main.py --exp_name"))
    for command in listed:
        command = command.replace("python3 main.py ...", training)
        for placeholder, value in places.items():
            command = command.replace(placeholder, value)
        assert "<" not in command and "..." not in command, command
        assert run(command) == 0, command


def test_python_blocks_run(trained_run, tiny_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(trained_run / "best.pth", tmp_path)
    shutil.copytree(tiny_root / "robotcar/overcast", "gallery")
    for name in ("photo.jpg", "new.jpg"):
        shutil.copy(min((tiny_root / "robotcar/rain").iterdir()), name)
    localizing, *others = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert len(others) == 2
    names = {}
    exec(localizing.replace('"photos"', '"best.pth"'), names)  # which is small
    assert len(names["localizer"]) == 7 and len(names["found"].matches) == 5 and Path("gallery.csv").is_file()
    for block in others:
        names = {"torch": torch, "images": torch.zeros((2, 3, 112, 128), dtype=torch.uint8)}
        exec(block.replace("path/of/this/repository", str(ROOT)), names)
        assert names["descriptors"].shape == (2, names["model"].descriptor_dim)


def test_make_targets_exist():
    rules = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", rules, re.MULTILINE), target
