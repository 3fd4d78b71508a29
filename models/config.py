"""What a network is: the one configuration, from the command line to the checkpoint. Importing it does not import torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

ARCHITECTURES = {"resnet18": 64, "resnet50": 256, "resnet101": 256}
"""Encoders: torchvision's name -> channels of stage 1; every further stage has twice as many."""
HEADS = ("deeplab", "pspnet", "fcn")
ATTENTIONS = ("released", "after_norm", "none")
INPUTS = ("released", "imagenet", "balanced")
STAGES = (1, 2, 3, 4)
MIN_SIDE = 97
"""Smallest image side in pixels: stage 3 is then 7x7, as wide as the attention's largest kernel."""


def _part(default: Any, text: str, **details: Any) -> Any:
    return field(default=default, metadata={"help": text, **details})


@dataclass(frozen=True)
class NetworkConfig:
    """Everything that the shape and the function of a network depend on; the defaults are the released network.

    Raises
    ------
    ValueError : a value that is not offered; the field is named.
    """

    arch: str = _part("resnet50", "encoder", choices=tuple(ARCHITECTURES))
    semnet: str = _part("deeplab", "semantic head", choices=HEADS)
    num_classes: int = _part(17, "semantic classes", least=1)
    scale_indexes: tuple[int, ...] = _part((3, 4), "encoder stages to pool, ascending", metavar="STAGE", nargs="*")
    attention: str = _part(
        "released",
        "where the map acts: before the norm, which cancels it (released); after the norm, on what GeM averages; or no map",
        choices=ATTENTIONS,
    )
    guidance: bool = _part(True, "the map multiplies the source logits (guided segmentation)")
    input: str = _part(
        "released",
        "what the network reads: BGR 0..255 minus small means (released), RGB with ImageNet's mean and deviation, or the same "
        "after each picture's exposure was balanced (for night and fog)",
        choices=INPUTS,
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale_indexes", tuple(self.scale_indexes))
        for part in fields(self):
            value, choices = getattr(self, part.name), part.metadata.get("choices")
            if choices and value not in choices:
                raise ValueError(f"{part.name}: {value!r} is not one of {', '.join(choices)}")
        if self.num_classes < 1:
            raise ValueError(f"num_classes: {self.num_classes} is not at least 1")
        stages = self.scale_indexes
        if not stages or list(stages) != sorted(set(stages)) or not set(stages) <= set(STAGES):
            shown = " ".join(map(str, stages)) or "(nothing)"
            raise ValueError(
                f"scale_indexes: {shown} is not an ascending, non-empty choice of stages 1 2 3 4; give some, such as 3 4"
            )

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> "NetworkConfig":
        """From what a checkpoint keeps; parts that came later stand at their defaults. ValueError for anything else."""
        known = {part.name: part.default for part in fields(cls)}
        oldest = {"arch", "semnet", "num_classes", "scale_indexes"}  # the first checkpoints had no more
        if not isinstance(values, Mapping) or not oldest <= set(values) <= set(known):
            raise ValueError("its configuration is not that of a SegVPR network")
        for name, value in values.items():
            wanted = list if name == "scale_indexes" else type(known[name])
            if not isinstance(value, wanted):
                raise ValueError(f"{name} {value!r} in its configuration is not a {wanted.__name__}")
        return cls(**values)

    def to_plain(self) -> dict[str, Any]:
        """Plain values, for a checkpoint or JSON."""
        return {**asdict(self), "scale_indexes": list(self.scale_indexes)}

    def __str__(self) -> str:
        scales = "+".join(map(str, self.scale_indexes))
        released = NetworkConfig()
        ours = (name for name in ("attention", "guidance", "input") if getattr(self, name) != getattr(released, name))
        switches = "".join(f", {name} {getattr(self, name)}" for name in ours)
        return f"{self.arch} with {self.semnet}, {self.num_classes} classes, pooled stages {scales}{switches}"
