"""The network and the training step against numbers of the reference implementation."""

import numpy as np
import pytest
import torch

from tests.formula import stream
from tests.golden_model import CONFIGURATIONS, formula_model, golden, labels, pictures, released_state
from tests.released_files import to_released
from utils.evaluation.metrics import ConfusionMatrix
from utils.runs.released import from_released
from utils.training.losses import semantic_loss, triplet_loss
from utils.training.optimizers import build_optimizers, poly
from utils.training.settings import LossSettings
from utils.training.step import train_step


def relative_error(value: torch.Tensor, expected: np.ndarray) -> float:
    assert tuple(value.shape) == expected.shape
    return float(np.abs(value.detach().numpy() - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("semnet", ["deeplab", "pspnet"])
@torch.no_grad()
def test_evaluation_matches_the_reference(semnet):
    model, expected = formula_model("resnet50", semnet), golden(f"eval_resnet50_{semnet}")
    images = pictures("open/eval", 2, 128, 192)
    output = model(images)
    assert relative_error(output.embeddings, expected["embeddings"]) < 1e-4
    assert relative_error(model.embed(images), expected["embeddings"]) < 1e-4
    assert relative_error(output.attention, expected["attention"]) < 1e-4
    assert relative_error(model.attend(images), expected["attention"]) < 1e-4
    assert relative_error(model.segment(images)[:, :, ::8, ::8], expected["sem_logits_s8"]) < 1e-4
    assert relative_error(output.logits[:, :, ::8, ::8], expected["weighted_sem_logits_s8"]) < 1e-4


def test_three_alternating_steps_match_the_reference():
    expected = golden("train_resnet50_deeplab")
    state = released_state("resnet50", "deeplab")
    model = formula_model("resnet50", "deeplab").double().train()
    optimizers = build_optimizers(model, batch_size=2)
    source = pictures("open/train/source", 6, 128, 160, torch.float64)
    target = pictures("open/train/target", 6, 128, 160, torch.float64)
    truth = labels("open/train/labels", 6, 128, 160)
    settings = LossSettings(da_method="alternating")
    names = ("triplet", "semantic", "adversarial", "discriminator_source", "discriminator_target")
    losses = []
    for _ in range(3):
        step = train_step(model, optimizers, source, truth, target, num_queries=2, settings=settings)
        assert all(loss.dtype == torch.float64 for loss in step.values())
        losses.append([float(step[name]) for name in names])
    np.testing.assert_allclose(losses, expected["losses"], rtol=1e-6)
    rates = optimizers.rates()
    np.testing.assert_allclose(
        [rates[name] for name in ("encoder", "head", "attention", "discriminator")], expected["lr_after"], rtol=1e-12
    )
    after = to_released(model.state_dict())
    for name in [key.removeprefix("delta_norm/") for key in expected if key.startswith("delta_norm/")]:
        delta = after[name].detach().double() - state[name].double()
        norm = expected[f"delta_norm/{name}"]
        if norm == 0:
            assert torch.count_nonzero(delta) == 0, name
        else:
            np.testing.assert_allclose(delta.norm().item(), norm, rtol=1e-4, err_msg=name)
            assert abs(delta.sum().item() - expected[f"delta_sum/{name}"]) < 1e-3 * norm, name


@pytest.mark.parametrize("arch, semnet", CONFIGURATIONS)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_released_names_load_strictly_and_round_trip(arch, semnet, prefix):
    from models import build_model

    released = released_state(arch, semnet)
    ours = from_released({prefix + key: value for key, value in released.items()})
    with torch.device("meta"):
        model = build_model(arch, semnet)
    model.load_state_dict(ours, strict=True, assign=True)
    back = to_released(model.state_dict())
    assert back.keys() == released.keys()
    assert all(torch.equal(back[key], released[key]) for key in released)


def test_losses_match_the_reference():
    expected = golden("losses")
    q, p, n = (
        stream(f"triplet/{x}").standard_normal((rows, 64)).astype(np.float32)
        for x, rows in [("q", 3), ("p", 3), ("n", 6)]
    )
    loss = triplet_loss(*map(torch.from_numpy, (q, q + np.float32(0.1) * p, q.repeat(2, 0) + np.float32(0.12) * n)))
    assert float(loss) == pytest.approx(float(expected["triplet_loss"]), rel=1e-5)
    logits = torch.from_numpy(stream("ce/logits").standard_normal((2, 17, 32, 48)).astype(np.float32))
    truth = labels("ce/labels", 2, 32, 48)
    assert float(semantic_loss(logits, truth)) == pytest.approx(float(expected["cross_entropy"]), rel=1e-5)
    confusion = ConfusionMatrix(17)
    confusion.update(logits.argmax(1), truth)
    assert 100 * confusion.mean_iou() == pytest.approx(float(expected["seg_mean_iou_pct"]), abs=0.005)
    np.testing.assert_allclose(100 * confusion.class_iou(), expected["seg_class_iou_pct"], atol=0.0051)
    rates = [poly(1e-3, step, 125_000) for step in (0, 1, 500, 999)]
    np.testing.assert_allclose(rates, expected["poly_lr_0_1_500_999"], rtol=1e-9)
