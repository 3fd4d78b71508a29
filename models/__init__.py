"""The SegVPR network: `build_model` is the one entry point. What needs torch is imported when it is first asked for."""

from typing import Any

from models.config import ARCHITECTURES, ATTENTIONS, HEADS, INPUTS, NetworkConfig

__all__ = ["ARCHITECTURES", "ATTENTIONS", "HEADS", "INPUTS", "NetworkConfig", "SegVPR", "SegVPROutput", "build_model"]


def __getattr__(name: str) -> Any:
    if name in ("SegVPR", "SegVPROutput", "build_model"):
        from models import segvpr

        return getattr(segvpr, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
