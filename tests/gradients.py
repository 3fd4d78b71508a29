"""A step's gradients, without an update."""

import torch

from utils.training.step import batch_losses


def backward_losses(model: torch.nn.Module, *batch, **settings) -> dict[str, torch.Tensor]:
    """Forward and backward passes of one step, see `batch_losses`; returns the losses."""
    total, losses = batch_losses(model, *batch, **settings)
    total.backward()
    return losses
