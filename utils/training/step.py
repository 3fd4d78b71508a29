"""One optimisation step of SegVPR, from tensors alone."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from models.domain import SOURCE, reverse_gradient
from models.segvpr import SegVPR
from utils.system.compute import Compute
from utils.system.distributed import average_tensors, sum_tensors, world_size
from utils.training.losses import (
    class_probabilities,
    class_weights,
    count_classes,
    count_pixels,
    discriminator_losses,
    domain_bce,
    pair_loss,
    semantic_loss,
    triplet_loss,
)
from utils.training.optimizers import Optimizers
from utils.training.settings import LossSettings

CPU = Compute()


def train_step(
    model: SegVPR,
    optimizers: Optimizers,
    images: Tensor,
    labels: Tensor | None,
    target_images: Tensor | None = None,
    *,
    num_queries: int,
    near: Tensor | None = None,
    settings: LossSettings | None = None,
    compute: Compute = CPU,
    progress: float = 1.0,
) -> dict[str, Tensor]:
    """One optimisation step (protocol, section 5), in the model's current mode; training uses train mode.

    Nothing here reads a value, which would wait for the device: the caller checks that losses are finite.

    Where several processes share the step, each brings equally many triplets and target images. Gradients, losses and running
    statistics are averaged over them, so that all update alike.

    Parameters
    ----------
    images : (num_queries * (2 + N), 3, H, W) source images in network input space: all queries, then their positives, then
        the N negatives of each, those of the first query first.
    labels : the source images' class maps (same number, H, W), any integer type, 255 ignored; unused when `sem_weight`
        is 0.
    target_images : (T, 3, H', W') target-domain images; unused with `da_method="none"` or `sem_weight` 0.
    num_queries : triplets in the batch.
    near : for `loss="pairs"`, see `pair_loss`; default none is too near.
    settings : loss weights and domain adaptation; default the released weights with gradient reversal.
    compute : precision of the convolutions; default that of the model.
    progress : share of the training that is done, for `grl_schedule="dann"`.

    Returns
    -------
    Unweighted losses by name, 0-dim tensors on the device: `triplet` or `pairs`, `semantic`, `adversarial` (alternating only),
    `discriminator_source`, `discriminator_target` (each half a BCE).
    """
    settings = settings or LossSettings()
    fewest = 3 if settings.loss == "triplet" else 2
    if len(images) < fewest * num_queries or len(images) % num_queries:
        raise ValueError(f"{len(images)} source images are not {num_queries} triplets with as many negatives each")
    optimizers.zero_grad()
    with compute.autocast():
        total, losses = batch_losses(model, images, labels, target_images, num_queries, settings, progress, near)
    optimizers.scaler.scale(total).backward()
    statistics = [x for x in model.buffers() if x.is_floating_point()]  # BN's counters are the same everywhere
    average_tensors([*optimizers.gradients(), *losses.values(), *statistics])
    optimizers.step()
    return losses


def batch_losses(
    model: SegVPR,
    images: Tensor,
    labels: Tensor | None,
    target_images: Tensor | None,
    num_queries: int,
    settings: LossSettings,
    progress: float = 1.0,
    near: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The forward passes of one step: the weighted total, and the unweighted losses in it, detached.

    Arguments as in `train_step`. Where several processes share the step, averages over them are the losses and gradients of
    the whole batch: each has equally many negatives and patches, and pixels are counted over all. Only the candidates of
    `pair_loss` are those of one process.
    """
    losses = {}
    output = model(images, with_logits=settings.uses_logits)
    queries, others = output.embeddings.tensor_split([num_queries])
    if settings.loss == "pairs":
        total = losses["pairs"] = pair_loss(queries, others, near, settings.temperature)
    else:
        total = losses["triplet"] = triplet_loss(queries, *others.tensor_split([num_queries]), settings.margin)
    if settings.uses_logits:
        weights = weights_over_all(labels, output.logits.shape[1]) if settings.class_weights else None
        losses["semantic"] = world_size() * semantic_loss(output.logits, labels, pixels_of_all(labels), weights)
        total = total + settings.sem_weight * losses["semantic"]
    if settings.uses_target:
        source = class_probabilities(output.logits)
        target = class_probabilities(model.segment(target_images))
        adapt = reversal if settings.da_method == "grl" else alternation
        more, domain = adapt(model.discriminator, source, target, settings, progress)
        total, losses = total + more, losses | domain
    return total, {name: loss.detach() for name, loss in losses.items()}


def reversal(
    discriminator: nn.Module, source: Tensor, target: Tensor, settings: LossSettings, progress: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Domain adaptation by gradient reversal: what it adds to the total, and the discriminator's losses."""
    factor = settings.reversal_factor(progress)
    on_source, on_target = discriminator_losses(discriminator, *(reverse_gradient(p, factor) for p in (source, target)))
    return settings.da_weight * (on_source + on_target), {
        "discriminator_source": on_source,
        "discriminator_target": on_target,
    }


def alternation(
    discriminator: nn.Module, source: Tensor, target: Tensor, settings: LossSettings, progress: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Domain adaptation as released: the network deceives a frozen discriminator, which learns from detached predictions."""
    with frozen(discriminator):
        adversarial = domain_bce(discriminator(target), SOURCE)
    on_source, on_target = discriminator_losses(discriminator, source.detach(), target.detach())
    total = settings.sem_weight * settings.adv_weight * adversarial + settings.da_weight * (on_source + on_target)
    return total, {
        "adversarial": adversarial,
        "discriminator_source": on_source,
        "discriminator_target": on_target,
    }


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


def weights_over_all(labels: Tensor, classes: int) -> Tensor:
    """Class weights by the labels of all processes, (classes,)."""
    counts = count_classes(labels, classes)
    sum_tensors([counts])
    return class_weights(counts)


def pixels_of_all(labels: Tensor) -> Tensor:
    """Number of labelled pixels in the batches of all processes, 0-dim int64."""
    pixels = count_pixels(labels)
    sum_tensors([pixels])
    return pixels
