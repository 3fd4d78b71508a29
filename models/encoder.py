"""ResNet stages without the classifier, with the BN affine parameters frozen as SegVPR does."""

import warnings
from pathlib import Path
from pickle import UnpicklingError

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.config import ARCHITECTURES, MIN_SIDE, STAGES


class Encoder(nn.Module):
    """ResNet-18, -50 or -101 cut after its last convolutional stage.

    Parameters
    ----------
    arch : one of `ARCHITECTURES`.
    train_from : `"all"`, `"none"`, or the first stage (1..4) that is trained; every child before it is frozen.
    freeze_bn : BN stays in eval mode, and none of its parameters is trained: a pretrained encoder keeps its statistics,
        which batches of few or altered images would spoil.

    Notes
    -----
    The affine parameters of bn1 (stem and blocks), bn2 and bn3 are never trained; those of the BN inside `downsample` are.
    Running statistics of all of them update in train mode (protocol, section 1), unless `freeze_bn`.
    """

    def __init__(self, arch: str = "resnet50", train_from: str | int = "all", freeze_bn: bool = False) -> None:
        super().__init__()
        resnet = getattr(torchvision.models, arch)(weights=None)
        self.conv1, self.bn1, self.relu, self.maxpool = resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4
        self.channels = {stage: ARCHITECTURES[arch] * 2 ** (stage - 1) for stage in STAGES}
        self.freeze_bn = freeze_bn
        self._freeze(train_from)

    def train(self, mode: bool = True) -> "Encoder":
        super().train(mode)
        for norm in self._norms() if self.freeze_bn else ():
            norm.eval()
        return self

    def _norms(self) -> list[nn.Module]:
        return [module for module in self.modules() if isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm))]

    def _freeze(self, train_from: str | int) -> None:
        for norm in self._norms() if self.freeze_bn else ():
            norm.requires_grad_(False).eval()
        for name, parameter in self.named_parameters():
            if "downsample" not in name and name.split(".")[-2].startswith("bn"):
                parameter.requires_grad_(False)
        if str(train_from) == "all":
            return
        if str(train_from) not in ("none", *map(str, STAGES)):
            raise ValueError(f"train_enc_from: {train_from!r} is neither 'all' nor 'none' nor a stage from 1 to 4")
        for name, child in self.named_children():
            if name == f"layer{train_from}":
                break
            child.requires_grad_(False)

    def forward(self, images: Tensor, last_stage: int = 4) -> dict[int, Tensor]:
        """Feature maps of the stages up to `last_stage`.

        Parameters
        ----------
        images : (B, 3, H, W), network input space, both sides at least `MIN_SIDE` pixels.

        Returns
        -------
        Stage number -> (B, `channels[stage]`, ceil(H / 2**(stage + 1)), ceil(W / 2**(stage + 1))).
        """
        if not images.is_floating_point():
            raise ValueError("images: 8-bit ones go through describe() or prepare(), which know the input space")
        if min(images.shape[-2:]) < MIN_SIDE:
            height, width = images.shape[-2:]
            raise ValueError(f"images of {width}x{height} px are too small: both sides must be at least {MIN_SIDE} px")
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        features = {}
        for stage in range(1, last_stage + 1):
            x = features[stage] = getattr(self, f"layer{stage}")(x)
        return features


def fold_batch_norm(encoder: Encoder) -> None:
    """Replace every convolution and the BN behind it by one convolution, in place: the same function in eval mode alone."""
    for module in [*encoder.modules()]:
        children = dict(module.named_children())
        if isinstance(module, nn.Sequential) and isinstance(
            children.get("1"), (nn.BatchNorm2d, nn.SyncBatchNorm)
        ):  # downsample
            module[0], module[1] = fuse_conv_bn_eval(module[0], module[1]), nn.Identity()
        for name in [name for name in children if name.startswith("bn")]:
            conv = name.replace("bn", "conv")
            setattr(module, conv, fuse_conv_bn_eval(children[conv], children[name]))
            setattr(module, name, nn.Identity())


def load_pretrained(encoder: Encoder, arch: str, source: str | Path | None) -> None:
    """Fill the encoder with classification weights.

    Parameters
    ----------
    source : `None` or `"none"` (leave the random weights), `"imagenet"` (torchvision's IMAGENET1K_V1, downloaded), or the
        path of a `.pth` file with a torchvision ResNet `state_dict`.

    Raises
    ------
    OSError : the download failed; the message says how to give a file instead.
    ValueError : the file holds no weights of this architecture.
    """
    if source is None or str(source) == "none":
        return
    if str(source) == "imagenet":
        state = _download_imagenet(arch)
    else:
        state = _read_state_dict(Path(source))
    wanted = encoder.state_dict()
    # torchvision's first release of these weights has no batch counters
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    odd = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    if missing or odd:
        example = (missing + odd)[0]
        raise ValueError(
            f"--pretrain {source}: not weights of {arch} (entry {example!r} is missing or of another shape); "
            "give those of this --arch"
        )
    encoder.load_state_dict({key: value for key, value in state.items() if key in wanted}, strict=False)


def _download_imagenet(arch: str) -> dict[str, Tensor]:
    weights = torchvision.models.get_model_weights(arch)["IMAGENET1K_V1"]
    try:
        return weights.get_state_dict(progress=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:  # absent, cut short or altered on the way
        raise OSError(
            f"--pretrain imagenet: cannot download {weights.url} ({error}); fetch it elsewhere and give its path "
            "(--pretrain FILE.pth), or start from random weights (--pretrain none)"
        ) from error


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"--pretrain {path}: no such file (give imagenet, none, or a .pth file)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on odd files torch has much to say; one line is enough
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"--pretrain {path}: not a readable .pth file of weights ({type(error).__name__}); give another, or none"
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise ValueError(f"--pretrain {path}: does not hold a state_dict; give another, or none")
    return {key.removeprefix("module."): value for key, value in state.items()}
