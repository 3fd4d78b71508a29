"""The SegVPR network: `build_model` is the one entry point."""

from models.encoder import ARCHITECTURES
from models.heads import HEADS
from models.input import INPUTS
from models.segvpr import ATTENTIONS, OPTIONS, SegVPR, SegVPROutput, build_model

__all__ = ["ARCHITECTURES", "ATTENTIONS", "HEADS", "INPUTS", "OPTIONS", "SegVPR", "SegVPROutput", "build_model"]
