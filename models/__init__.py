"""The SegVPR network: `build_model` is the one entry point."""

from models.encoder import ARCHITECTURES
from models.heads import HEADS
from models.segvpr import SegVPR, SegVPROutput, build_model

__all__ = ["ARCHITECTURES", "HEADS", "SegVPR", "SegVPROutput", "build_model"]
