"""Gradient reversal and the adversarial gradients, in float64 against their formulas."""

from functools import partial

import pytest
import torch

from models import build_model
from models.domain import Discriminator, GradientReversal, reverse_gradient
from tests.golden_model import labels, pictures
from tests.gradients import backward_losses
from utils.training.losses import class_probabilities, discriminator_losses, domain_bce, semantic_loss, triplet_loss
from utils.training.optimizers import build_optimizers
from utils.training.settings import LossSettings
from utils.training.step import train_step


def gradients(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("factor", [0.0, 0.001, 1.0, 3.5])
def test_backward_is_minus_factor_times_gradient(factor):
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    g = torch.randn(4, 5, dtype=torch.float64)
    y = GradientReversal.apply(x, factor)
    assert torch.equal(y, x)
    y.backward(g)
    torch.testing.assert_close(x.grad, -factor * g, rtol=0, atol=0)


def test_reversed_losses_have_the_gradients_of_the_formula():
    torch.manual_seed(0)
    discriminator = Discriminator(5).double()
    logits = [torch.randn(2, 5, 64, 64, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    factor, weight = 0.37, 0.5
    reversed_ = [reverse_gradient(class_probabilities(x), factor) for x in logits]
    (weight * sum(discriminator_losses(discriminator, *reversed_))).backward()
    ours, network = gradients(discriminator), [x.grad.clone() for x in logits]
    discriminator.zero_grad()
    plain = [x.detach().requires_grad_() for x in logits]
    source, target = (domain_bce(discriminator(x.softmax(1)), label) / 2 for x, label in zip(plain, (0.0, 1.0)))
    (source + target).backward()
    for name, gradient in gradients(discriminator).items():
        torch.testing.assert_close(ours[name], weight * gradient, rtol=1e-9, atol=1e-15)
    for mine, x in zip(network, plain):
        torch.testing.assert_close(mine, -factor * weight * x.grad, rtol=1e-9, atol=1e-18)


@pytest.fixture(scope="module")
def small_model():
    torch.manual_seed(0)
    return build_model("resnet18").double().train()


BATCH = {
    "images": pictures("da/source", 3, 97, 128, torch.float64),
    "labels": labels("da/labels", 3, 104, 128)[:, :97],
    "target_images": pictures("da/target", 3, 97, 112, torch.float64),
    "num_queries": 1,
}


def backward(model, **settings):
    model.zero_grad(set_to_none=True)
    losses = backward_losses(model, **BATCH, settings=LossSettings(**settings))
    return losses, gradients(model)


def test_the_discriminator_learns_alike_from_reversal_and_alternation(small_model):
    _, reversal = backward(small_model, da_method="grl")
    _, alternating = backward(small_model, da_method="alternating")
    names = [name for name in reversal if name.startswith("discriminator")]
    assert len(names) == 10
    for name in names:
        torch.testing.assert_close(reversal[name], alternating[name], rtol=1e-9, atol=1e-15)


def test_the_network_receives_the_reversed_gradient_of_the_formula(small_model):
    weights = {"sem_weight": 0.4, "adv_weight": 0.7, "da_weight": 0.3}
    _, with_reversal = backward(small_model, da_method="grl", **weights)
    small_model.zero_grad(set_to_none=True)
    output = small_model(BATCH["images"])
    target = small_model.segment(BATCH["target_images"])
    q, p, n = output.embeddings.split(1)
    domain = sum(discriminator_losses(small_model.discriminator, output.logits.softmax(1), target.softmax(1)))
    total = triplet_loss(q, p, n) + 0.4 * semantic_loss(output.logits, BATCH["labels"]) - 0.4 * 0.7 * domain
    total.backward()
    for name, gradient in gradients(small_model).items():
        if not name.startswith("discriminator"):
            torch.testing.assert_close(with_reversal[name], gradient, rtol=1e-8, atol=1e-12, msg=name)


def test_without_adaptation_neither_target_nor_discriminator_is_touched(small_model):
    small_model.zero_grad(set_to_none=True)
    losses = backward_losses(small_model, **{**BATCH, "target_images": None}, settings=LossSettings(da_method="none"))
    assert losses.keys() == {"triplet", "semantic"}
    assert all(p.grad is None for p in small_model.discriminator.parameters())


def test_without_semantics_the_head_does_no_work(small_model):
    calls = []
    hook = small_model.head.register_forward_hook(lambda *_: calls.append(1))
    small_model.zero_grad(set_to_none=True)
    losses = backward_losses(
        small_model,
        **{**BATCH, "labels": None, "target_images": None},
        settings=LossSettings(sem_weight=0, da_method="none"),
    )
    hook.remove()
    assert losses.keys() == {"triplet"} and not calls
    assert all(p.grad is None for p in small_model.head.parameters())


@pytest.mark.parametrize("queries, accepted", [(1, True), (2, True), (3, False), (4, False)])
def test_every_query_has_as_many_negatives(queries, accepted):
    model = build_model("resnet18")
    images = pictures("count", 6, 97, 97)
    call = partial(train_step, model, build_optimizers(model), images, None, num_queries=queries)
    settings = LossSettings(sem_weight=0, da_method="none")
    if accepted:
        assert call(settings=settings).keys() == {"triplet"}
    else:
        with pytest.raises(ValueError, match="6 source images"):
            call(settings=settings)


def test_a_reversal_without_weight_is_refused():
    with pytest.raises(ValueError, match="da_loss_weight"):
        LossSettings(da_weight=0)
    LossSettings(da_weight=0, da_method="alternating")
