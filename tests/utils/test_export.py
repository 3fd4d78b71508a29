"""ONNX files against torch."""

import sys

import numpy as np
import pytest
import torch

from models import build_model
from models.input import to_network_input
from utils import export
from utils.runs.checkpoints import load_checkpoint, save_checkpoint

SIZE = (128, 112)
NEEDS_ONNX = "needs onnx and onnxruntime (pip install onnx onnxruntime)"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("export") / "best.pth"
    save_checkpoint(path, build_model("resnet18", scale_indexes=[2, 3, 4]), {})
    return path


def command(checkpoint, out, *flags) -> list[str]:
    return ["--resume", str(checkpoint), "--out", str(out), "--size", *map(str, SIZE), *flags]


@pytest.mark.parametrize("raw, opset", [(False, "17"), (True, "20")])
def test_the_file_gives_what_torch_gives(checkpoint, tmp_path, capsys, raw, opset):
    pytest.importorskip("onnx", reason=NEEDS_ONNX)
    onnxruntime = pytest.importorskip("onnxruntime", reason=NEEDS_ONNX)
    out = tmp_path / "segvpr.onnx"
    assert export.main(command(checkpoint, out, "--opset", opset, *(["--raw"] if raw else []))) == 0
    said = capsys.readouterr().out
    assert "largest difference from torch:" in said and "128x112" in said and ("uint8 RGB" in said) == raw
    assert list(tmp_path.iterdir()) == [out]
    model = load_checkpoint(checkpoint).build()
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    (given,), (returned,) = session.get_inputs(), session.get_outputs()
    assert given.type == ("tensor(uint8)" if raw else "tensor(float)") and given.shape[1:] == [3, 112, 128]
    for batch in (1, 3):
        images = torch.from_numpy(np.random.default_rng(batch).integers(0, 256, (batch, 3, 112, 128), np.uint8))
        with torch.inference_mode():
            expected = model.embed(to_network_input(images)).numpy()
        sent = images if raw else to_network_input(images)
        (found,) = session.run([returned.name], {given.name: sent.numpy()})
        assert found.dtype == np.float32 and found.shape == (batch, 128 + 256 + 512)
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_file_that_differs_is_not_kept(checkpoint, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnx", reason=NEEDS_ONNX)
    pytest.importorskip("onnxruntime", reason=NEEDS_ONNX)
    (tmp_path / "out.onnx").write_text("older")
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    assert export.main(command(checkpoint, tmp_path / "out.onnx")) == 2
    assert "not kept" in capsys.readouterr().err
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("out.onnx", "older")]


def test_without_onnxruntime_the_file_is_written_unchecked(checkpoint, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnx", reason=NEEDS_ONNX)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert export.main(command(checkpoint, tmp_path / "out.onnx")) == 0
    assert "not checked" in capsys.readouterr().out and (tmp_path / "out.onnx").exists()


def test_without_onnx_one_line_says_how_to_get_it(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert export.main(command(checkpoint, tmp_path / "out.onnx")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "onnx is not installed" in line and "pip install onnx" in line and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "flags, reason",
    [
        (["--size", "96", "200"], "at least 97 px"),
        (["--out", "absent/out.onnx"], "--out absent/out.onnx"),
        (["--resume", "absent.pth"], "absent.pth: no such checkpoint"),
    ],
)
def test_errors_are_one_line(checkpoint, tmp_path, capsys, flags, reason):
    assert export.main([*command(checkpoint, tmp_path / "out.onnx"), *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("utils.export: error: ") and reason in line


def test_an_opset_that_cannot_be_written(checkpoint, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        export.main(command(checkpoint, tmp_path / "out.onnx", "--opset", "9"))
    assert stop.value.code == 2 and len(capsys.readouterr().err.splitlines()) == 1


def test_weights_alone_are_a_checkpoint_to_start_from(tmp_path, capsys):
    model, run, out = build_model("resnet18", "pspnet", 5), tmp_path / "last.pth", tmp_path / "weights.pth"
    save_checkpoint(run, model, {"run": {}, "optimizers": {}, "record": {}})
    assert export.main(["--resume", str(run), "--out", str(out)]) == 0
    assert f"{out}: weights of resnet18 with pspnet, 5 classes" in capsys.readouterr().out
    weights = load_checkpoint(out)
    assert weights.training == {} and weights.config == model.config
    assert all(torch.equal(value, weights.state_dict[name]) for name, value in model.state_dict().items())
    before = run.read_bytes()
    assert export.main(["--resume", str(run), "--out", str(run)]) == 2
    assert export.main(["--resume", str(run), "--out", str(tmp_path / "none/w.pth")]) == 2
    assert run.read_bytes() == before
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "the checkpoint itself" in lines[0] and "a folder that exists" in lines[1]
