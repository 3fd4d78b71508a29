"""Checkpoints on disk: ours, and those of the reference implementation, told apart by content."""

import os
import re
import shutil
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.segvpr import OPTIONS, SegVPR, build_model

SHIPPED = Path(__file__).resolve().parents[2] / "pretrained/segvpr_town.pth"
"""The network that ships; segvpr_town.json beside it has its history and command."""
FORMAT = "segvpr-2"
READABLE = (FORMAT, "segvpr-1")
"""Weights are written alike in all of them. Runs of older ones drew other triplets, so they cannot go on."""
TRAINING_ONLY = "discriminator."
WRAPPERS = {"module", "_orig_mod"}
"""What DataParallel (or DistributedDataParallel) and torch.compile add to the names of the parameters that they wrap."""
REMEDY = "give a .pth file that main.py wrote, or a released one"

# Released prefix -> ours. The first match counts, so a longer prefix stands before a shorter one.
PREFIXES = (
    ("sem_branch.encoder.", "encoder."),
    ("sem_branch.cls.conv2d_list.", "head.branches."),
    ("sem_branch.cls.", "head.classifier."),
    ("sem_branch.ppm.features.", "head.pyramid.levels."),
    ("vpr_pooling.", "pooling."),
    ("attention_layers.layer1.", "attention.convs.0."),
    ("attention_layers.layer2.", "attention.convs.1."),
    ("attention_layers.layer3.", "attention.convs.2."),
    ("attention_layers.final_conv.", "attention.merge."),
    ("DA.conv1.", "discriminator.convs.0."),
    ("DA.conv2.", "discriminator.convs.1."),
    ("DA.conv3.", "discriminator.convs.2."),
    ("DA.conv4.", "discriminator.convs.3."),
    ("DA.classifier.", "discriminator.convs.4."),
)


def without_wrappers(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Parameter names less `WRAPPERS`, wherever they stand; ValueError where two entries become one."""
    bare: dict[str, Any] = {}
    for key, value in state_dict.items():
        name = ".".join(part for part in key.split(".") if part not in WRAPPERS)
        if name in bare:
            raise ValueError(f"it holds {name!r} twice, once as {key!r}")
        bare[name] = value
    return bare


def _rename(state_dict: Mapping[str, Any], table: list[tuple[str, str]], origin: str) -> dict[str, Any]:
    renamed = {}
    for key, value in state_dict.items():
        for old, new in table:
            if key.startswith(old):
                renamed[new + key.removeprefix(old)] = value
                break
        else:
            raise ValueError(f"state_dict entry {key!r} is not one of a {origin} SegVPR checkpoint")
    return renamed


def from_released(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Released parameter names -> ours; `WRAPPERS` are dropped, values are passed on untouched."""
    return _rename(without_wrappers(state_dict), list(PREFIXES), "released")


def to_released(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Our parameter names -> released ones (without a `module.` prefix), values are passed on untouched."""
    return _rename(state_dict, [(ours, released) for released, ours in PREFIXES], "this project's")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read into memory (CPU), whoever wrote it.

    Attributes
    ----------
    config : `arch`, `semnet`, `num_classes`, `scale_indexes`, `attention`, `guidance`, `input`: the keyword arguments of
        `build_model`.
    state_dict : weights under our names.
    training : state of the run that wrote it; empty for a released file.
    format : what the file says of itself; for a released file, what we write now.
    """

    path: Path
    released: bool
    config: dict[str, Any]
    state_dict: dict[str, Tensor]
    training: dict[str, Any] = field(default_factory=dict)
    format: str = FORMAT

    def build(self) -> SegVPR:
        """The network with these weights, in eval mode on the CPU."""
        model = build_model(**self.config)
        self.load_into(model)
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
                f"{self.path}: does not fit {model.config['arch']} with {model.config['semnet']} and "
                f"{model.config['num_classes']} classes (entry {odd[0]!r}); it holds {describe_config(self.config)}: "
                "give --arch, --semnet and --num_classes of the checkpoint, or another checkpoint"
            )
        # what was written without a discriminator leaves the model's as it is; numbers take the model's type
        model.load_state_dict(self.state_dict, strict=False)


def describe_config(config: Mapping[str, Any]) -> str:
    scales = "+".join(map(str, config["scale_indexes"]))
    ours = "".join(f", {name} {config[name]}" for name, value in OPTIONS.items() if config[name] != value)
    return f"{config['arch']} with {config['semnet']}, {config['num_classes']} classes, pooled stages {scales}{ours}"


def save_checkpoint(
    path: Path, model: SegVPR, training: dict[str, Any], keep: Path | None = None, half: bool = False
) -> None:
    """Write a checkpoint, see `write_atomically`.

    Parameters
    ----------
    half : write weights alone and small, see `half_precision`; they are read as any others.
    """
    state = half_precision(model.state_dict()) if half else model.state_dict()
    content = {"format": FORMAT, "config": dict(model.config), "model": state, "training": training}
    write_atomically(path, content, keep)


def half_precision(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Kernels as float16, without the discriminator, which only training asks.

    Vectors stay as they are: they weigh nothing, and running variances can leave the range of float16.

    Raises
    ------
    ValueError : a kernel does; it is named.
    """
    kept = {name: value for name, value in state_dict.items() if not name.startswith(TRAINING_ONLY)}
    half = {name: value.half() if value.ndim > 1 else value for name, value in kept.items()}
    odd = next((name for name, value in half.items() if not torch.isfinite(value).all()), None)
    if odd is not None:
        raise ValueError(f"{odd} has values that float16 cannot hold, or that are not finite; keep full precision")
    return half


def write_atomically(path: Path, content: Any, keep: Path | None = None) -> None:
    """`torch.save` that never leaves a half-written file under the final name.

    Parameters
    ----------
    keep : where the file that stood there goes; at every moment one of the two is whole.

    Raises
    ------
    OSError : the disk is full or not writable; the file that stood there is untouched.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            _second_name(path, keep)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch turns a failed write into a RuntimeError
        temporary.unlink(missing_ok=True)
        cause = error if isinstance(error, OSError) else error.__context__
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(error).splitlines()[0]
        raise OSError(
            f"{path}: cannot write this checkpoint ({reason}); make room, then resume: older ones are intact"
        ) from error


def _second_name(path: Path, keep: Path) -> None:
    """Give a file a second name, in one step."""
    temporary = keep.with_name(keep.name + ".tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, temporary)
    os.replace(temporary, keep)


def _sync_folder(folder: Path) -> None:
    """Make renames in a folder last through a power cut, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


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
    config = {**OPTIONS, **config} if isinstance(config, dict) else config  # older files lack our options
    if not (_is_config(config) and _is_state_dict(state) and _is_training(training)):
        raise ValueError(
            f"{path}: not a SegVPR checkpoint (its configuration, weights or run state are not as they should be); {REMEDY}"
        )
    try:
        return Checkpoint(path, False, dict(config), without_wrappers(state), training, content["format"])
    except ValueError as error:
        raise ValueError(f"{path}: not a SegVPR checkpoint ({error}); {REMEDY}") from error


def _is_config(config: Any) -> bool:
    """Whether these are keyword arguments of `build_model` of the right types."""
    types = {"arch": str, "semnet": str, "num_classes": int, "scale_indexes": list}
    types |= {name: type(value) for name, value in OPTIONS.items()}
    return (
        isinstance(config, dict)
        and config.keys() == types.keys()
        and all(isinstance(config[key], kind) for key, kind in types.items())
        and config["num_classes"] > 0
        and all(isinstance(stage, int) for stage in config["scale_indexes"])
    )


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


def infer_config(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """Configuration of released weights (our names), from their keys and shapes. Pooled stages leave no trace: 3 4."""
    if "encoder.layer1.0.conv3.weight" not in state_dict:
        arch = "resnet18"
    else:
        arch = "resnet101" if "encoder.layer3.22.conv1.weight" in state_dict else "resnet50"
    pspnet = "head.classifier.4.weight" in state_dict
    last = state_dict["head.classifier.4.weight" if pspnet else "head.branches.0.weight"]
    return {
        "arch": arch,
        "semnet": "pspnet" if pspnet else "deeplab",
        "num_classes": int(last.shape[0]),
        "scale_indexes": [3, 4],
        **OPTIONS,
    }
