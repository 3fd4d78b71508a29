"""One optimisation step of SegVPR, from tensors alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.domain import SOURCE, reverse_gradient
from models.segvpr import SegVPR
from utils.compute import Compute
from utils.distributed import average_tensors, sum_tensors, world_size
from utils.losses import (
    class_probabilities,
    count_pixels,
    discriminator_losses,
    domain_bce,
    semantic_loss,
    triplet_loss,
)
from utils.schedules import poly

CPU = Compute()
DA_METHODS = ("grl", "alternating", "none")
TOTAL_TRIPLETS = 250_000
"""Triplets after which the released schedule reaches a rate of zero."""


@dataclass(frozen=True)
class LossSettings:
    """What the losses weigh (released defaults) and how the domains are adapted.

    `margin` is the square of the distance margin, as in the released parser.
    """

    margin: float = 0.1
    sem_weight: float = 0.5
    adv_weight: float = 0.001
    da_weight: float = 0.5
    da_method: str = "grl"

    def __post_init__(self) -> None:
        if self.da_method not in DA_METHODS:
            raise ValueError(f"da_method: {self.da_method!r} is not one of {', '.join(DA_METHODS)}")
        if self.da_method == "grl" and not self.da_weight > 0:
            raise ValueError("da_loss_weight: must be above 0 with da_method grl, whose reversal factor it divides")
        if self.margin < 0:
            raise ValueError(f"margin: {self.margin} is negative; its square root is the loss margin")

    @property
    def reversal_factor(self) -> float:
        """Scale of the reversed gradient, so that the network receives sem_weight * adv_weight of dL."""
        return self.sem_weight * self.adv_weight / self.da_weight

    @property
    def uses_target(self) -> bool:
        return self.da_method != "none"

    @property
    def uses_logits(self) -> bool:
        return self.sem_weight != 0 or self.uses_target


class Optimizers:
    """SGD of the network, Adam of the discriminator, their shared poly schedule, and the scale of fp16 losses.

    The step count lives on the device, and so do the rates: an update that is skipped leaves parameters, optimiser states
    and schedule as they were, without the host having to look.

    Attributes
    ----------
    steps : 0-dim int64, updates made so far.
    loss_scale : 0-dim float32 that losses are multiplied by before their backward pass, or None (fp16 alone needs one).
    """

    SCALE_GROWS_AFTER = 2000

    def __init__(
        self, network: torch.optim.SGD, discriminator: torch.optim.Adam, max_steps: float, scale_losses: bool = False
    ) -> None:
        self.network, self.discriminator, self.max_steps = network, discriminator, max_steps
        self.base_lrs = [float(group["lr"]) for group in self._groups()]
        self.device = next(p for group in self._groups() for p in group["params"]).device
        self.steps = torch.zeros((), dtype=torch.int64, device=self.device)
        self.loss_scale = torch.full((), 2.0**16, device=self.device) if scale_losses else None
        self.good_steps = torch.zeros((), dtype=torch.int64, device=self.device)
        self.skipped = torch.zeros((), device=self.device)
        for group in network.param_groups:
            for parameter in group["params"]:
                # SGD's own first step would copy the gradient; from zero it computes the same, and can be skipped.
                network.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        self._set_rates()

    def _groups(self) -> list[dict]:
        return self.network.param_groups + self.discriminator.param_groups

    def _set_rates(self) -> None:
        for group, base in zip(self._groups(), self.base_lrs):
            group["lr"] = poly(base, self.steps, self.max_steps)

    def rates(self) -> dict[str, float]:
        """Current learning rate of each group, by name (waits for the device)."""
        return {group["name"]: float(group["lr"]) for group in self._groups()}

    def gradients(self) -> list[Tensor]:
        return [p.grad for group in self._groups() for p in group["params"] if p.grad is not None]

    def zero_grad(self) -> None:
        self.network.zero_grad(set_to_none=True)
        self.discriminator.zero_grad(set_to_none=True)

    def step(self, skip: Tensor) -> None:
        """Update the weights, then the rates; where the 0-dim bool tensor `skip` is true, do neither.

        `skipped` keeps what was done: 0, or infinity where an update that should have been made was not. fp16 overflows
        now and then, and its scale is halved; that counts only when no scale is left to halve.
        """
        failed = skip if self.loss_scale is None else skip & (self.loss_scale < 1)
        self.skipped = torch.where(failed, torch.inf, 0.0)
        for optimizer in (self.network, self.discriminator):
            optimizer.grad_scale, optimizer.found_inf = self.loss_scale, skip.to(torch.float32)
            optimizer.step()
        self.steps = self.steps + (~skip).to(torch.int64)
        self._set_rates()
        if self.loss_scale is not None:
            self._adapt_scale(skip)

    def _adapt_scale(self, skip: Tensor) -> None:
        """Halve the scale after an overflow, double it after many steps without one (as torch.amp.GradScaler does)."""
        self.good_steps = torch.where(skip, 0, self.good_steps + 1)
        grows = self.good_steps == self.SCALE_GROWS_AFTER
        self.loss_scale = self.loss_scale * torch.where(skip, 0.5, torch.where(grows, 2.0, 1.0))
        self.good_steps = torch.where(grows, 0, self.good_steps)

    def state_dict(self) -> dict:
        return {
            "network": self.network.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "steps": int(self.steps),
            "loss_scale": None if self.loss_scale is None else float(self.loss_scale),
            "good_steps": int(self.good_steps),
        }

    def load_state_dict(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.discriminator.load_state_dict(state["discriminator"])
        self.steps = torch.full_like(self.steps, state["steps"])
        self.good_steps = torch.full_like(self.good_steps, state["good_steps"])
        if self.loss_scale is not None and state["loss_scale"] is not None:
            self.loss_scale = torch.full_like(self.loss_scale, state["loss_scale"])
        self._set_rates()


def build_optimizers(
    model: SegVPR,
    batch_size: int = 2,
    lr: float = 2.5e-4,
    d_lr: float = 1e-4,
    momentum: float = 0.9,
    weight_decay: float = 0.005,
    max_steps: float | None = None,
    scale_losses: bool = False,
) -> Optimizers:
    """The optimisers of the protocol, section 5.

    Parameters
    ----------
    batch_size : triplets per step; rates are multiplied by twice this number.
    lr, d_lr : base rates of the network (head and pyramid take ten times it) and of the discriminator.
    max_steps : step at which the rates reach zero; default 250000 / `batch_size`.
    scale_losses : keep a dynamic loss scale, which fp16 needs.
    """
    lr, d_lr = lr * batch_size * 2, d_lr * batch_size * 2
    pyramid = getattr(model.head, "pyramid", None)
    in_pyramid = {id(p) for p in pyramid.parameters()} if pyramid is not None else set()
    parts = {
        "encoder": (lr, model.encoder.parameters()),
        "head": (10 * lr, (p for p in model.head.parameters() if id(p) not in in_pyramid)),
        "attention": (lr, model.attention.parameters()),
    }
    if pyramid is not None:
        parts["pyramid"] = (10 * lr, pyramid.parameters())
    groups = [
        {"name": name, "lr": rate, "params": [p for p in parameters if p.requires_grad]}
        for name, (rate, parameters) in parts.items()
    ]
    network = torch.optim.SGD(groups, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=True)
    domain = [{"name": "discriminator", "params": list(model.discriminator.parameters())}]
    discriminator = torch.optim.Adam(domain, lr=d_lr, betas=(0.9, 0.99), fused=True)
    max_steps = TOTAL_TRIPLETS / batch_size if max_steps is None else max_steps
    return Optimizers(network, discriminator, max_steps, scale_losses)


@contextmanager
def unchanged_by_failure(buffers: list[Tensor]) -> Iterator[list[Tensor]]:
    """Yield copies of some buffers, and put them back where what is within raises."""
    before = [buffer.clone() for buffer in buffers]
    try:
        yield before
    except BaseException:
        for buffer, old in zip(buffers, before):
            buffer.copy_(old)
        raise


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Within it, gradients pass through the module but its parameters receive none."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def backward_losses(
    model: SegVPR,
    images: Tensor,
    labels: Tensor | None,
    target_images: Tensor | None,
    num_queries: int,
    num_negatives: int,
    settings: LossSettings,
    loss_scale: Tensor | float = 1.0,
) -> dict[str, Tensor]:
    """Forward and backward passes of one step; gradients, times `loss_scale`, are added to `.grad`.

    Other arguments and result as in `train_step`. Where several processes share the step, averages over them are the losses
    and gradients of the whole: each has as many negatives and patches as the others, and pixels are counted over all.
    """
    losses = {}
    pixels = count_pixels(labels) if settings.sem_weight else None
    if settings.sem_weight:
        sum_tensors([pixels])
    output = model(images, with_logits=settings.uses_logits)
    parts = output.embeddings.split([num_queries, num_queries, num_queries * num_negatives])
    losses["triplet"] = triplet_loss(*parts, margin=settings.margin)
    total = losses["triplet"]
    if settings.sem_weight:
        losses["semantic"] = world_size() * semantic_loss(output.logits, labels, pixels)
        total = total + settings.sem_weight * losses["semantic"]
    if settings.uses_target:
        source = class_probabilities(output.logits)
        target = class_probabilities(model.segment(target_images))
    if settings.da_method == "grl":
        reversed_ = [reverse_gradient(p, settings.reversal_factor) for p in (source, target)]
        own = discriminator_losses(model.discriminator, *reversed_)
        total = total + settings.da_weight * (own[0] + own[1])
    elif settings.da_method == "alternating":
        with frozen(model.discriminator):
            losses["adversarial"] = domain_bce(model.discriminator(target), SOURCE)
            total = total + settings.sem_weight * settings.adv_weight * losses["adversarial"]
            (total * loss_scale).backward()
        own = discriminator_losses(model.discriminator, source.detach(), target.detach())
        total = settings.da_weight * (own[0] + own[1])
    (total * loss_scale).backward()
    if settings.uses_target:
        losses["discriminator_source"], losses["discriminator_target"] = own
    return {name: loss.detach() for name, loss in losses.items()}


def train_step(
    model: SegVPR,
    optimizers: Optimizers,
    images: Tensor,
    labels: Tensor | None,
    target_images: Tensor | None = None,
    *,
    num_queries: int,
    num_negatives: int = 1,
    settings: LossSettings | None = None,
    compute: Compute = CPU,
) -> dict[str, Tensor]:
    """One optimisation step (protocol, section 5). The model's mode is the caller's choice; training uses train mode.

    A loss or gradient that is not finite turns the whole update into nothing: parameters, running statistics, optimiser
    states and schedule stay as they were, decided on the device without waiting for it.

    Where several processes share the step, each brings as many triplets and target images as the others. Gradients, losses
    and running statistics are averaged over them, so that all decide and update alike.

    Parameters
    ----------
    images : (num_queries * (2 + num_negatives), 3, H, W) source images in network input space: all queries, then their
        positives, then the negatives, those of the first query first.
    labels : the source images' class maps (same number, H, W), any integer type, 255 ignored; unused when `sem_weight`
        is 0.
    target_images : (T, 3, H', W') target-domain images; unused with `da_method="none"`.
    num_queries, num_negatives : triplets in the batch, and negatives per triplet. Their number in the whole batch is
        understood too: the number of images tells the two apart.
    settings : loss weights and domain adaptation; default the released weights with gradient reversal.
    compute : precision of the convolutions; default that of the model.

    Returns
    -------
    Unweighted losses by name, 0-dim tensors on the device: `triplet`, `semantic`, `adversarial` (alternating only),
    `discriminator_source`, `discriminator_target` (each half a BCE).
    """
    settings = settings or LossSettings()
    per_query = (len(images) - 2 * num_queries) / num_queries
    if per_query < 1 or num_negatives not in (per_query, per_query * num_queries):
        raise ValueError(
            f"{len(images)} source images are not {num_queries} triplets with {num_negatives} negatives each"
        )
    optimizers.zero_grad()
    statistics = list(model.buffers())
    scale = 1.0 if optimizers.loss_scale is None else optimizers.loss_scale
    with unchanged_by_failure(statistics) as before:
        with compute.autocast():
            losses = backward_losses(model, images, labels, target_images, num_queries, int(per_query), settings, scale)
        floating = [x for x in statistics if x.is_floating_point()]  # BN's counters are the same everywhere
        average_tensors([*optimizers.gradients(), *losses.values(), *floating])
    skip = ~all_finite([*losses.values(), *torch._foreach_norm(optimizers.gradients())])
    for buffer, old in zip(statistics, before):
        buffer.copy_(torch.where(skip, old, buffer))
    optimizers.step(skip)
    return losses


def all_finite(scalars: list[Tensor]) -> Tensor:
    """Whether every one of some 0-dim tensors is finite: a 0-dim bool tensor on their device."""
    return torch.stack([x.detach().to(torch.float32) for x in scalars]).isfinite().all()
