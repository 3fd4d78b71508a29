"""Checkpoints on disk: ours, and those of the reference implementation. The content tells which is which."""

import json
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.files import hard_link, replacing
from models.config import NetworkConfig
from models.segvpr import SegVPR
from utils.runs.released import from_released, infer_config, without_wrappers

SHIPPED, SHIPPED_FOR_PHOTOS = (
    Path(__file__).resolve().parents[2] / f"pretrained/segvpr_{name}.pth" for name in ("town", "photos")
)
"""The networks that ship; the .json beside each has its history and command."""
FORMAT = "segvpr-2"
READABLE = (FORMAT, "segvpr-1")
"""All of them hold weights in the same way. A run of an older one drew other triplets, so it cannot continue."""
TRAINING_ONLY = "discriminator."
REMEDY = "give a .pth file that main.py wrote, or a released one"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read into memory (CPU), whoever wrote it.

    Attributes
    ----------
    state_dict : weights under our names.
    training : state of the run that wrote it; empty for a released file.
    format : what the file says of itself; for a released file, what we write now.
    image_size : longer side in pixels of the photos that the network is for; None if nobody has recorded it.
    """

    path: Path
    released: bool
    config: NetworkConfig
    state_dict: dict[str, Tensor]
    training: dict[str, Any] = field(default_factory=dict)
    format: str = FORMAT
    image_size: int | None = None

    def build(self) -> SegVPR:
        """The network with these weights, in eval mode on the CPU."""
        model = SegVPR(self.config)
        self.load_into(model)
        model.image_size = self.image_size
        return model.eval()

    def load_into(self, model: SegVPR) -> None:
        """Fill `model` with these weights; ValueError, naming the first odd entry, where they do not fit."""
        wanted = model.state_dict()
        if not self.released and not any(key.startswith(TRAINING_ONLY) for key in self.state_dict):
            wanted = {key: value for key, value in wanted.items() if not key.startswith(TRAINING_ONLY)}
        odd = [k for k in wanted if k not in self.state_dict or wanted[k].shape != self.state_dict[k].shape]
        odd += [key for key in self.state_dict if key not in wanted]
        if odd:
            raise ValueError(
                f"{self.path}: does not fit {model.config.arch} with {model.config.semnet} and "
                f"{model.config.num_classes} classes (entry {odd[0]!r}); it holds {self.config}: "
                "give --arch, --semnet and --num_classes of the checkpoint, or another checkpoint"
            )
        # what was written without a discriminator leaves the model's as it is; numbers take the model's type
        model.load_state_dict(self.state_dict, strict=False)


def find_weights(weights: str | Path) -> Path:
    """The file that a name means: `town` or `photos`, a network that ships, or else a path."""
    return {"town": SHIPPED, "photos": SHIPPED_FOR_PHOTOS}.get(str(weights)) or Path(weights).expanduser()


def save_checkpoint(path: Path, model: SegVPR, training: dict[str, Any], keep: Path | None = None) -> None:
    """Write a checkpoint, see `write_atomically`."""
    write_atomically(path, content_of(model.config, model.state_dict(), training, model.image_size), keep)


def content_of(
    config: NetworkConfig, state_dict: Mapping[str, Tensor], training: dict[str, Any], image_size: int | None = None
) -> dict[str, Any]:
    """What a checkpoint's file holds; `training` is empty for weights alone."""
    content = {"format": FORMAT, "config": config.to_plain(), "model": state_dict, "training": training}
    return content | {"image_size": image_size}


def write_atomically(path: Path, content: Any, keep: Path | None = None) -> None:
    """`torch.save` to a file that is whole whenever it exists, even after a power cut.

    Parameters
    ----------
    keep : where the older file of this name goes; at every moment one of the two is whole.

    Raises
    ------
    OSError : the disk is full or not writable; the older file stays as it is.
    """
    try:
        with replacing(path, durable=True) as part:
            with open(part, "wb") as file:  # given a path, torch's writer hides the system's reason
                torch.save(content, file)
            if keep is not None and path.exists():
                hard_link(path, keep)
    except (OSError, RuntimeError) as error:  # torch turns a failed write into a RuntimeError
        cause = error if isinstance(error, OSError) else error.__context__
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(error).splitlines()[0]
        raise OSError(
            f"{path}: cannot write this checkpoint ({reason}); make room, then resume: older ones are intact"
        ) from error


def _allowed_globals() -> list:
    """What released files need beyond tensors: NumPy scalars as NumPy 1 and 2 pickle them, and nothing else."""
    scalar = np.float64(0).__reduce__()[0]
    codec = (b"".__reduce_ex__(2)[0], "_codecs.encode")
    types = [type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32")]
    return [
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        codec,
        np.dtype,
        *types,
    ]


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of ours or of the reference implementation, without running code from it.

    Raises
    ------
    FileNotFoundError, ValueError : no such file, or not a SegVPR checkpoint; the message names the file.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: a folder, not a checkpoint; name a file in it, such as best.pth")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint file; correct the path")
    try:
        check_sums(path)
        with torch.serialization.safe_globals(_allowed_globals()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on odd files torch has much to say; one line is enough
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path}: not a checkpoint that can be read safely ({_why_unreadable(error)}); {REMEDY}"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a SegVPR checkpoint (it holds a {type(content).__name__}); {REMEDY}")
    if "format" in content:
        return _read_ours(path, content)
    return _read_released(path, content)


def _why_unreadable(error: Exception) -> str:
    """The part of torch's message that concerns a user; not its advice, which is to run whatever a file says."""
    text = " ".join(str(error).split())
    called = re.search(r"(?i)unsupported global:?\s+(?:global\s+)?([\w.]+)", text)
    if called:
        return f"it would run code: {called[1]}"
    return (
        "not a file of torch.save" if not text or "weights_only" in text or isinstance(error, KeyError) else text[:200]
    )


def check_sums(path: Path) -> None:
    """ValueError where a zip file's contents do not match their check sums, which torch itself does not look at."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            odd = archive.testzip()
        if odd is not None:
            raise ValueError(f"damaged: the check sum of {odd} is wrong")


def _read_ours(path: Path, content: dict) -> Checkpoint:
    if content["format"] not in READABLE:
        known = " or ".join(READABLE)
        raise ValueError(f"{path}: checkpoint format {content['format']!r} is not {known}, which this version reads")
    config, state, training = (content.get(key) for key in ("config", "model", "training"))
    if not (_is_state_dict(state) and _is_training(training)):
        raise ValueError(f"{path}: not a SegVPR checkpoint (its weights or run state are malformed); {REMEDY}")
    try:
        network = NetworkConfig.from_plain(config)
        size = content["image_size"] if "image_size" in content else _size_beside(path)
        if size is not None and not (isinstance(size, int) and size > 0):
            raise ValueError(f"its image_size {size!r} is not a number of pixels")
        return Checkpoint(path, False, network, without_wrappers(state), training, content["format"], size)
    except ValueError as error:
        raise ValueError(f"{path}: not a SegVPR checkpoint ({error}); {REMEDY}") from error


def _size_beside(path: Path) -> int | None:
    """What `image_size` the record beside a file of weights names, as that of the network that ships, which is older."""
    try:
        return json.loads(path.with_suffix(".json").read_text()).get("image_size")
    except (OSError, ValueError, AttributeError):
        return None


def _is_state_dict(state: Any) -> bool:
    return isinstance(state, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())


def _is_training(training: Any) -> bool:
    """Whether this is a run's state, or nothing."""
    return isinstance(training, dict) and (
        "run" not in training or all(isinstance(training.get(key), dict) for key in ("run", "optimizers", "record"))
    )


def _read_released(path: Path, content: dict) -> Checkpoint:
    state = content.get("state_dict", content)
    if not state or not _is_state_dict(state):
        raise ValueError(f"{path}: not a SegVPR checkpoint (no state_dict in it); {REMEDY}")
    try:
        state = from_released(state)
        return Checkpoint(path, True, infer_config(state), state)
    except (ValueError, KeyError, IndexError) as error:
        raise ValueError(f"{path}: not a SegVPR checkpoint ({error}); {REMEDY}") from error
