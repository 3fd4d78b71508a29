"""What an ONNX file takes, as flags."""

from dataclasses import dataclass

from datasets.command_line import flag

OPSETS = range(11, 21)
"""The first that resizes with aligned corners, to the last that torch's tracing exporter writes."""


@dataclass(frozen=True)
class OnnxSettings:
    """What an ONNX file takes."""

    size: tuple[int, int] = flag((960, 540), "of the images in pixels, after scaling", least=1, metavar=("W", "H"))
    opset: int = flag(17, f"version of ONNX's operators, {OPSETS[0]} to {OPSETS[-1]}", choices=OPSETS, metavar="N")
    raw: bool = flag(False, "take RGB uint8 images and normalise them within the file")
