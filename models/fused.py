"""The encoder for embedding on a CPU: oneDNN runs a convolution together with the ReLU and the sum behind it.

Apart, each of them reads and writes the whole feature map once more, which costs as much as the convolutions in bf16.
"""

import torch
from torch import Tensor, nn

from models.encoder import Encoder

OPERATORS = "_convolution_pointwise", "_convolution_pointwise_", "_reorder_convolution_weight"
"""Of torch.ops.mkldnn, where torch's own compiler calls them; a torch without them runs the encoder as it is."""


def can_fuse(weight: Tensor) -> bool:
    """Whether oneDNN runs convolutions with such weights here."""
    onednn = torch.ops.mkldnn
    if weight.device.type != "cpu" or torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return False
    if not torch.backends.mkldnn.is_available() or not all(hasattr(onednn, name) for name in OPERATORS):
        return False
    if weight.dtype == torch.bfloat16:
        return onednn._is_mkldnn_bf16_supported()
    return weight.dtype == torch.float32


def fuse_convolutions(encoder: Encoder) -> None:
    """Let each convolution do what stands behind it, in place: for an encoder without BN (`fold_batch_norm`), in eval mode
    and without gradients alone."""
    encoder.conv1, encoder.relu = FusedConv(encoder.conv1, "relu"), nn.Identity()
    for name, stage in encoder.named_children():
        if name.startswith("layer"):
            setattr(encoder, name, nn.Sequential(*(FusedBlock(block) for block in stage)))


class FusedConv(nn.Module):
    """A convolution and the function behind it, `relu` or `none`. Weights are laid out anew for each other size of images."""

    def __init__(self, conv: nn.Conv2d, function: str) -> None:
        super().__init__()
        self.weight, self.bias, self.function = conv.weight, conv.bias, function
        self._geometry = [*conv.padding], [*conv.stride], [*conv.dilation], conv.groups
        self._laid_out: tuple[torch.Size, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)  # images may come in another
        arguments = x, self._weight(x), self.bias, *self._geometry, self.function, [], ""
        return torch.ops.mkldnn._convolution_pointwise(*arguments)

    def onto(self, total: Tensor, x: Tensor) -> Tensor:
        """The function of `total` + the convolution of `x`, written to `total`."""
        arguments = total, x, self._weight(x), self.bias, *self._geometry, "add", 1.0, self.function, [], ""
        return torch.ops.mkldnn._convolution_pointwise_.binary(*arguments)

    def __getstate__(self) -> dict:
        """Without the laid out weights, which can be neither copied nor pickled; the next call lays them out again."""
        return {**self.__dict__, "_laid_out": None}

    def _weight(self, x: Tensor) -> Tensor:
        held = self._laid_out
        if held is None or held[0] != x.shape:  # in one step: several threads may ask at once
            made = torch.ops.mkldnn._reorder_convolution_weight(self.weight, *self._geometry, [*x.shape])
            held = self._laid_out = x.shape, made
        return held[1]

    def _load_from_state_dict(self, *arguments) -> None:
        super()._load_from_state_dict(*arguments)
        self._laid_out = None


class FusedBlock(nn.Module):
    """A block of a ResNet. It overwrites its input where that is its shortcut: such an input is no stage's output."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        *first, last = (conv for name, conv in block.named_children() if name.startswith("conv"))
        self.first = nn.Sequential(*(FusedConv(conv, "relu") for conv in first))
        self.last = FusedConv(last, "relu")
        self.shortcut = nn.Identity() if block.downsample is None else FusedConv(block.downsample[0], "none")

    def forward(self, x: Tensor) -> Tensor:
        total = self.shortcut(x)
        return self.last.onto(total, self.first(x))
