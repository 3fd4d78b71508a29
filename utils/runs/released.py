"""Names and configuration of checkpoints that the reference implementation wrote."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from models.config import NetworkConfig

WRAPPERS = {"module", "_orig_mod"}
"""What DataParallel, DistributedDataParallel and torch.compile add to parameter names."""

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
    """Parameter names without `WRAPPERS`, anywhere in them; ValueError if two entries become one."""
    bare: dict[str, Any] = {}
    for key, value in state_dict.items():
        name = ".".join(part for part in key.split(".") if part not in WRAPPERS)
        if name in bare:
            raise ValueError(f"it holds {name!r} twice, once as {key!r}")
        bare[name] = value
    return bare


def from_released(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Released parameter names -> ours, without `WRAPPERS`; values stay as they are."""
    renamed = {}
    for key, value in without_wrappers(state_dict).items():
        found = next(((old, new) for old, new in PREFIXES if key.startswith(old)), None)
        if found is None:
            raise ValueError(f"state_dict entry {key!r} is not one of a released SegVPR checkpoint")
        renamed[found[1] + key.removeprefix(found[0])] = value
    return renamed


def infer_config(state_dict: Mapping[str, Tensor]) -> NetworkConfig:
    """Configuration of released weights (our names), from their keys and shapes. Pooled stages leave no trace: 3 4."""
    if "encoder.layer1.0.conv3.weight" not in state_dict:
        arch = "resnet18"
    else:
        arch = "resnet101" if "encoder.layer3.22.conv1.weight" in state_dict else "resnet50"
    pspnet = "head.classifier.4.weight" in state_dict
    last = state_dict["head.classifier.4.weight" if pspnet else "head.branches.0.weight"]
    semnet = "pspnet" if pspnet else "deeplab"
    return NetworkConfig(arch, semnet, int(last.shape[0]))
