"""What updates the weights: SGD or AdamW for the network, Adam for the discriminator, on the poly schedule."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim.lr_scheduler import LambdaLR

from models.segvpr import SegVPR
from utils.training.settings import OptimizerSettings


@dataclass(frozen=True)
class Optimizers:
    """The optimisers of the network and of the discriminator, their schedules, and the scale of fp16 losses.

    Attributes
    ----------
    schedules : of the network and of the discriminator, counted in updates.
    scaler : keeps fp16 gradients from vanishing; disabled for other precisions, where it changes nothing.
    """

    network: torch.optim.Optimizer
    discriminator: torch.optim.Adam
    schedules: tuple[LambdaLR, LambdaLR]
    scaler: GradScaler

    def rates(self) -> dict[str, float]:
        """Current learning rate of each group, by name."""
        return {group["name"]: group["lr"] for group in self.network.param_groups + self.discriminator.param_groups}

    def gradients(self) -> list[Tensor]:
        groups = self.network.param_groups + self.discriminator.param_groups
        return [p.grad for group in groups for p in group["params"] if p.grad is not None]

    def zero_grad(self) -> None:
        self.network.zero_grad()
        self.discriminator.zero_grad()

    def step(self) -> None:
        """Update the weights, then the rates. Where fp16 gradients overflow, halve the scale of the losses instead."""
        scale = self.scaler.get_scale()
        for optimizer in (self.network, self.discriminator):
            if any(p.grad is not None for group in optimizer.param_groups for p in group["params"]):
                self.scaler.step(optimizer)
            else:
                optimizer.step()  # nothing to update, which the scaler calls an error
        self.scaler.update()
        if self.scaler.get_scale() >= scale:
            for schedule in self.schedules:
                schedule.step()

    def gradient_norm(self) -> Tensor:
        """Norm of the last step's gradients, 0-dim, on the device; not finite where the step went wrong.

        An overflow of fp16 costs one step, and counts as an error (else 0) only when the scale cannot be halved any more.
        """
        norm = torch.nn.utils.get_total_norm(self.gradients())
        return torch.zeros_like(norm) if self.scaler.is_enabled() and self.scaler.get_scale() >= 1 else norm

    def state_dict(self) -> dict:
        return {
            "network": self.network.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "schedules": [schedule.state_dict() for schedule in self.schedules],
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.discriminator.load_state_dict(state["discriminator"])
        for schedule, saved in zip(self.schedules, state["schedules"]):
            schedule.load_state_dict(saved)
        self.scaler.load_state_dict(state["scaler"])


def poly(base: float, step: float, max_steps: float, power: float = 0.9) -> float:
    """``base * (1 - step / max_steps) ** power``, zero from `max_steps` on (protocol, section 5)."""
    return base * (1 - min(step, max_steps) / max_steps) ** power


def warm_up(step: int, steps: int) -> float:
    """Factor of the rates of update `step` (from 0): grows evenly, and is 1 from update number `steps` on."""
    return min(1.0, (step + 1) / max(steps, 1))


def build_optimizers(
    model: SegVPR, batch_size: int = 2, settings: OptimizerSettings | None = None, scale_losses: bool = False
) -> Optimizers:
    """The optimisers of the protocol, section 5.

    Parameters
    ----------
    batch_size : triplets per step; rates are multiplied by twice this number.
    settings : rates per triplet and their schedule; default as released.
    scale_losses : keep a dynamic loss scale, which fp16 needs.
    """
    settings = settings or OptimizerSettings()
    per_step = 2 * batch_size
    groups = model.parameter_groups(settings.lr * per_step)
    shared = {"lr": settings.lr * per_step, "weight_decay": settings.weight_decay}
    if settings.method == "adamw":
        network = torch.optim.AdamW(groups, **shared, fused=True)
    else:
        # fused SGD reads momentum that was never written, if a loss scale skips its first step
        network = torch.optim.SGD(groups, **shared, momentum=settings.momentum, fused=not scale_losses)
    domain = [{"name": "discriminator", "params": list(model.discriminator.parameters())}]
    discriminator = torch.optim.Adam(domain, lr=settings.d_lr * per_step, betas=(0.9, 0.99), fused=True)
    max_steps = settings.lr_triplets / batch_size
    schedules = tuple(
        LambdaLR(optimizer, lambda step: warm_up(step, settings.warmup_steps) * poly(1.0, step, max_steps))
        for optimizer in (network, discriminator)
    )
    device = domain[0]["params"][0].device.type
    return Optimizers(network, discriminator, schedules, GradScaler(device, enabled=scale_losses))
