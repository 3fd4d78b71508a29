"""Damaged checkpoints, full disks, and run folders that are in use."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from utils.runs.checkpoints import load_checkpoint, write_atomically
from utils.runs.folders import LOCK, load_newest, locked, replace_damaged

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:200] + b"\0" * 50 + b[250:]]
)
def test_every_kind_of_damage_is_seen(tmp_path, damage):
    config = {"arch": "resnet18", "semnet": "deeplab", "num_classes": 17, "scale_indexes": [3, 4]}
    content = {"format": "segvpr-1", "config": config, "model": {"w": torch.randn(500)}, "training": {}}
    write_atomically(tmp_path / "last.pth", content)
    load_checkpoint(tmp_path / "last.pth")
    write_atomically(tmp_path / "last.pth", {**content, "model": {}}, tmp_path / "previous.pth")
    (tmp_path / "last.pth").write_bytes(damage((tmp_path / "previous.pth").read_bytes()))
    assert load_newest(tmp_path / "last.pth").path.name == "previous.pth"
    (tmp_path / "previous.pth").unlink()
    with pytest.raises(ValueError, match=r"last\.pth"):
        load_newest(tmp_path / "last.pth")


def test_the_checkpoint_that_replaced_a_damaged_one_is_kept_at_the_next_save(tmp_path):
    (tmp_path / "last.pth").write_bytes(b"damaged")
    write_atomically(tmp_path / "previous.pth", {"whole": 1})
    replace_damaged(tmp_path / "previous.pth", tmp_path)
    write_atomically(tmp_path / "last.pth", {"whole": 2}, tmp_path / "previous.pth")
    assert [torch.load(tmp_path / name)["whole"] for name in ("last.pth", "previous.pth")] == [2, 1]


def test_a_full_disk_leaves_the_older_checkpoint_intact(tmp_path):
    path, limits = tmp_path / "last.pth", resource.getrlimit(resource.RLIMIT_FSIZE)
    write_atomically(path, {"small": torch.zeros(10)})
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"cannot write this checkpoint .*File too large"):
            write_atomically(path, {"large": torch.zeros(100_000)}, tmp_path / "previous.pth")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.load(path)["small"].shape == (10,)
    assert [file.name for file in tmp_path.iterdir()] == ["last.pth"]


def test_a_run_folder_is_locked_until_its_process_ends_though_children_live_on(tmp_path):
    code = (
        "import os, sys, time; from pathlib import Path; from datasets.files import locked\n"
        "with locked(Path(sys.argv[1])):\n"
        "  if os.fork() == 0: time.sleep(20); os._exit(0)\n"
        "  print('in', flush=True); sys.stdin.read(); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / LOCK)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"in\n"
        with pytest.raises(ValueError, match="another process is training in this run folder"), locked(tmp_path):
            pass
        holder.stdin.close()
        holder.wait(timeout=60)
        holder.stdout.close()  # its child still holds the other end
        with locked(tmp_path):
            pass
