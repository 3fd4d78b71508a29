"""Write a checkpoint's descriptor network as an ONNX file, or its weights alone as a checkpoint.

python3 -m utils.export --resume best.pth --out segvpr.onnx [--size 960 540] [--raw]
python3 -m utils.export --resume best.pth --out weights.pth
"""

from utils.options.parsers import export_parser

if __name__ == "__main__":
    export_parser().parse_args()  # before torch is imported: --help and a mistyped flag are answered at once

import sys
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from datasets.command_line import read_flags
from datasets.files import replacing
from models.config import MIN_SIDE
from models.segvpr import SegVPR
from utils.options.export import OnnxSettings
from utils.runs.checkpoints import Checkpoint, content_of, load_checkpoint, write_atomically
from utils.system.command import run_command
from utils.system.logs import LOGGER, start_logging
from utils.system.seeding import generator

INPUT, OUTPUT = "images", "descriptors"
CHECKED_BATCHES = (1, 3)
TOLERANCE = 1e-3
"""Largest difference from torch, relative to the largest value of the descriptors, with which a file is kept."""


class DescriptorNetwork(nn.Module):
    """What is exported: images -> descriptors (B, D) and nothing else.

    Parameters
    ----------
    raw : images are RGB uint8 (B, 3, H, W), normalised within, instead of float32 in network input space.
    """

    def __init__(self, model: SegVPR, raw: bool = False) -> None:
        super().__init__()
        self.model, self.raw = model, raw

    def forward(self, images: Tensor) -> Tensor:
        return self.model.embed(self.model.prepare(images) if self.raw else images)


def export_onnx(model: SegVPR, out: Path, settings: OnnxSettings) -> float | None:
    """Write `model.embed` as ONNX: input `images` (any B, 3, H, W), output `descriptors` (B, D).

    Parameters
    ----------
    model : on the CPU, in eval mode.

    Returns
    -------
    The largest difference from torch over batches of noise, relative to the largest value; None without onnxruntime, which
    checks the file.

    Raises
    ------
    ValueError, OSError : a package is missing, the size is too small, the file cannot be written or gives other
        descriptors than torch. Then no file is kept.
    """
    width, height = settings.size
    if min(width, height) < MIN_SIDE:
        raise ValueError(f"--size {width} {height}: both sides must be at least {MIN_SIDE} px")
    check_target(out)
    if find_spec("onnx") is None:
        raise ValueError(
            "the package onnx is not installed; get it with: pip install onnx onnxruntime (the latter to check the file)"
        )
    network = DescriptorNetwork(model, settings.raw).eval()
    with replacing(out) as part:
        _write(network, part, _noise(1, settings.size, network), settings.opset)
        difference = compare(network, part, settings.size) if find_spec("onnxruntime") else None
        if difference is not None and not difference <= TOLERANCE:
            raise ValueError(
                f"--out {out}: not kept, its descriptors differ from torch's by {difference:.1e}; try --opset 20"
            )
    return difference


def write_weights(checkpoint: Checkpoint, out: Path) -> None:
    """Write all weights of a checkpoint as one of ours, without the state of their run.

    Raises
    ------
    OSError, ValueError : the file cannot be written, or is the checkpoint itself.
    """
    if out.resolve() == checkpoint.path.resolve():
        raise ValueError(f"--out {out}: this is the checkpoint itself; name another file")
    check_target(out)
    write_atomically(out, content_of(checkpoint.config, checkpoint.state_dict, {}))
    LOGGER.info("%s: weights of %s", out, checkpoint.config)


def check_target(out: Path) -> None:
    """FileNotFoundError if no file can be written there."""
    if not out.parent.is_dir() or out.is_dir():
        raise FileNotFoundError(f"--out {out}: name a file in a folder that exists")


def _write(network: DescriptorNetwork, path: Path, example: Tensor, opset: int) -> None:
    with warnings.catch_warnings(), torch.inference_mode():
        # shapes are meant to be fixed; the tracing exporter is deprecated, but the other needs onnxscript
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (example,),
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
        )


def _noise(batch: int, size: tuple[int, int], network: DescriptorNetwork) -> Tensor:
    """Images of noise of (width, height), the same at every call."""
    values = generator(0, "export", batch).integers(0, 256, (batch, 3, size[1], size[0]))
    images = torch.from_numpy(values.astype(np.uint8))
    return images if network.raw else network.model.prepare(images)


@torch.inference_mode()
def compare(network: DescriptorNetwork, path: Path, size: tuple[int, int]) -> float:
    """The largest difference between an ONNX file's descriptors and torch's, relative to the largest value of torch's."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    differences = []
    for batch in CHECKED_BATCHES:
        images = _noise(batch, size, network)
        expected = network(images).numpy()
        (found,) = session.run([OUTPUT], {INPUT: images.numpy()})
        if found.shape != expected.shape:
            raise ValueError(f"{path}: gives descriptors of shape {found.shape} instead of {expected.shape}")
        differences.append(np.abs(found - expected).max() / np.abs(expected).max())
    return float(np.max(differences))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = export_parser().parse_args(argv)

    def command() -> None:
        start_logging()
        if args.out.suffix == ".pth":
            write_weights(load_checkpoint(args.resume), args.out)
            return
        checkpoint = load_checkpoint(args.resume)
        settings = read_flags(OnnxSettings, args)
        difference = export_onnx(checkpoint.build(), args.out, settings)
        form = "uint8 RGB" if settings.raw else "float32, network input space"
        network = checkpoint.config
        LOGGER.info("%s: %s; images %dx%d, %s", args.out, network, *settings.size, form)
        if difference is None:
            LOGGER.info("not checked against torch: onnxruntime is not installed (pip install onnxruntime)")
        else:
            LOGGER.info("largest difference from torch: %.1e of the largest value", difference)

    return run_command("utils.export", command)


if __name__ == "__main__":
    sys.exit(main())
