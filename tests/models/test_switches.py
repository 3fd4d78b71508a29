"""The switches of the study do what they say: gradients are there or absent where they should be, checkpoints record them."""

import json
import math

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st

import eval as evaluation_script
import main
from models import build_model
from models.input import IMAGENET_DEVIATIONS, IMAGENET_MEANS, balance_exposure, to_network_input
from tests.golden_model import pictures
from tests.gradients import backward_losses
from tests.tiny import SMALL_RUN, data_flags
from utils.runs.checkpoints import load_checkpoint, save_checkpoint
from utils.training.settings import LossSettings

WEIGHT_DECAY = 0.005
ADVERSARIAL = LossSettings(adv_weight=1.0)  # large enough to be seen


def gradients(
    settings: LossSettings, progress: float = 1.0, **options
) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """One step's gradients in float64, BN in train mode."""
    torch.manual_seed(0)
    model = build_model("resnet18", num_classes=5, **options).double().train()
    images, target = pictures("switch", 3, 97, 113).double(), pictures("switch target", 3, 97, 97).double()
    labels = torch.randint(0, 5, (3, 97, 113), generator=torch.manual_seed(1))
    backward_losses(model, images, labels, target, 1, settings, progress=progress)
    return model, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def strength(model: torch.nn.Module, found: dict[str, torch.Tensor], part: str) -> float:
    """Norm of a part's gradient in units of its weight-decay term; 0 where there is none."""
    parameters = {name: p for name, p in model.named_parameters() if name.startswith(part) and p.requires_grad}
    decay = WEIGHT_DECAY * sum(p.square().sum() for p in parameters.values()).sqrt()
    gradient = sum(found[name].square().sum() for name in parameters if name in found)
    return float(gradient) ** 0.5 / decay.item()


@pytest.mark.parametrize("attention, trained", [("released", False), ("after_norm", True)])
def test_the_triplet_loss_trains_attention_only_after_the_norm(attention, trained):
    model, found = gradients(LossSettings(), attention=attention)
    assert (strength(model, found, "attention") > 1e-3) == trained
    assert strength(model, found, "encoder") > 1e-3


@torch.no_grad()
def test_without_attention_there_is_no_map():
    model = build_model("resnet18", attention="none").eval()
    images = pictures("none", 2, 97, 131)
    output = model(images)
    assert not [name for name in model.state_dict() if name.startswith("attention")]
    assert torch.equal(output.attention, torch.ones(2, 1, 5, 7)) and torch.equal(model.attend(images), output.attention)
    torch.testing.assert_close(output.logits, model.segment(images))


@torch.no_grad()
def test_a_map_after_the_norm_weighs_what_gem_averages():
    model = build_model("resnet18", attention="after_norm", scale_indexes=(3,)).double().eval()
    images = pictures("after", 2, 97, 131).double()
    x = model.encoder(images)[3]
    attention = torch.nn.functional.interpolate(model.attend(images), x.shape[-2:], mode="bilinear", align_corners=True)
    weight = attention / attention.mean(dim=(2, 3), keepdim=True)
    normed = x / (x.square().sum(1, keepdim=True).sqrt() + 1e-6)
    expected = ((normed * weight).clamp(min=1e-6) ** 3).mean(dim=(2, 3)) ** (1 / 3)
    torch.testing.assert_close(model.embed(images), expected, rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_guidance_decides_whether_the_map_multiplies_logits():
    images = pictures("guidance", 2, 97, 97)
    for guidance in (True, False):
        model = build_model("resnet18", guidance=guidance).eval()
        assert torch.equal(model(images).logits, model.segment(images)) != guidance


@torch.no_grad()
def test_after_the_norm_guidance_does_not_follow_the_maps_scale():
    images = pictures("scale", 2, 97, 97)
    for attention, follows in (("after_norm", False), ("released", True)):
        model = build_model("resnet18", attention=attention).double().eval()
        before = model(images.double())
        forward = model.attention.forward
        model.attention.forward = lambda x, forward=forward: 100 * forward(x)
        after = model(images.double())
        assert torch.allclose(after.logits, before.logits) != follows
        if not follows:
            torch.testing.assert_close(after.embeddings, before.embeddings)


def test_without_semantic_loss_the_head_does_no_work():
    def busy(*_):
        raise AssertionError("the head was run")

    for method in ("grl", "alternating", "none"):
        torch.manual_seed(0)
        model = build_model("resnet18")
        model.head.register_forward_hook(busy)
        model.discriminator.register_forward_hook(busy)
        images = pictures("no head", 3, 97, 97)
        losses = backward_losses(model, images, None, images, 1, LossSettings(sem_weight=0, da_method=method))
        assert list(losses) == ["triplet"]
        assert all(p.grad is None for p in [*model.head.parameters(), *model.discriminator.parameters()])


@pytest.mark.parametrize("method", ["grl", "alternating"])
def test_domain_adaptation_reaches_the_network(method):
    settings = LossSettings(adv_weight=1.0, da_method=method)
    model, with_it = gradients(settings)
    _, without = gradients(LossSettings(da_method="none"))
    moved = {name: with_it[name] - without[name] for name in without if name.startswith("head")}
    assert strength(model, moved, "head") > 1e-3
    assert strength(model, with_it, "discriminator") > 1e-3 and strength(model, without, "discriminator") == 0


def test_the_dann_ramp_grows_from_zero_to_the_constant():
    ramp = LossSettings(adv_weight=1.0, grl_schedule="dann")
    assert ramp.reversal_factor(0) == 0
    assert ramp.reversal_factor(0.3) == pytest.approx(ADVERSARIAL.reversal_factor() * (2 / (1 + np.exp(-3)) - 1))
    assert ramp.reversal_factor(1) == pytest.approx(ADVERSARIAL.reversal_factor(), rel=1e-4)
    _, start = gradients(ramp, progress=0.0)
    _, without = gradients(LossSettings(da_method="none"))
    for name, gradient in without.items():
        torch.testing.assert_close(start[name], gradient)
    _, end = gradients(ramp, progress=1.0)
    assert any(not torch.allclose(end[name], without[name]) for name in without if name.startswith("head"))


def test_imagenet_input_is_what_torchvision_feeds_its_encoders():
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8, generator=torch.manual_seed(0))
    expected = torchvision.transforms.functional.normalize(
        image.float() / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    torch.testing.assert_close(to_network_input(image, space="imagenet"), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name, value", [("attention", "before"), ("input", "bgr")])
def test_odd_choices_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}: '{value}' is not one of"):
        build_model("resnet18", **{name: value})


def test_a_file_from_before_the_switches_is_the_released_network(tmp_path):
    model = build_model("resnet18")
    save_checkpoint(tmp_path / "new.pth", model, {})
    content = torch.load(tmp_path / "new.pth", weights_only=True)
    content["config"] = {key: content["config"][key] for key in ("arch", "semnet", "num_classes", "scale_indexes")}
    torch.save(content, tmp_path / "old.pth")
    assert load_checkpoint(tmp_path / "old.pth").build().config == model.config


def test_a_run_records_its_switches_and_eval_needs_no_flags(tiny_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    choices = "--attention after_norm --no-guidance --input imagenet --grl_schedule dann".split()
    choices += "--semnet fcn --freeze_bn --augment all --augment_zoom 0.8".split()
    assert main.main([*data_flags(tiny_root), *SMALL_RUN, *choices, *"--n_epochs 1 --queries_per_epoch 4".split()]) == 0
    (folder,) = (tmp_path / "runs/default").iterdir()
    config = load_checkpoint(folder / "best.pth").config
    assert config.semnet == "fcn"
    assert (config.attention, config.guidance, config.input) == ("after_norm", False, "imagenet")
    flags = [flag for flag in data_flags(tiny_root)[2:6]]
    evaluated = [
        "--resume",
        str(folder / "best.pth"),
        *flags,
        "--eval_scale",
        "1",
        "--output_dir",
        str(tmp_path / "out"),
    ]
    machine = ["--device", "cpu", "--num_workers", "0", "--no_report", "--test_g", "overcast", "--test_q", "rain"]
    assert evaluation_script.main([*evaluated, *machine]) == 0
    ours, again = (json.loads((path / "results.json").read_text())["sets"] for path in (folder, tmp_path / "out"))
    assert [s["recall"] for s in again] == [s["recall"] for s in ours if s["name"] in ("val", "rain")]


def photo(low: float, high: float) -> torch.Tensor:
    """A picture of smooth patterns, RGB uint8 (3, 120, 160), with values between `low` and `high`."""
    rows, columns = torch.meshgrid(torch.linspace(0, 9, 120), torch.linspace(0, 7, 160), indexing="ij")
    waves = torch.stack([rows.sin() * columns.cos(), (rows + columns).sin(), (rows - columns).cos()]) / 2 + 0.5
    return (low + waves * (high - low)).round().to(torch.uint8)


def test_balanced_pictures_differ_less_than_their_light():
    bright, dark = photo(60, 250), photo(10, 48)
    plain = (bright.float() - dark.float()).abs().mean()
    balanced = (balance_exposure(bright) - balance_exposure(dark)).abs().mean()
    assert plain > 100 and balanced < 5


def test_balanced_exposure_by_hand():
    image = torch.zeros(3, 100, 100, dtype=torch.uint8)
    image[:, ::4, ::4] = torch.arange(25, dtype=torch.uint8)[None, :, None] * 10  # the pixels that are looked at
    expected = torch.arange(25, dtype=torch.float64) * 10 / 240  # from black to white; the middle value is 120
    expected = 255 * expected ** (math.log(0.42) / math.log(0.5))
    found = balance_exposure(image, torch.float64)
    torch.testing.assert_close(found[:, ::4, ::4], expected[None, :, None].expand(3, 25, 25))


@given(st.integers(0, 255), st.integers(0, 255), st.integers(97, 110), st.integers(97, 110))
def test_balanced_exposure_stays_within_8_bits_and_does_not_look_at_other_pictures(low, high, height, width):
    images = torch.stack([photo(low, high), photo(high, low)])[..., :height, :width]
    found = balance_exposure(images)
    assert found.isfinite().all() and found.min() >= 0 and found.max() <= 255
    torch.testing.assert_close(found[1], balance_exposure(images[1]), rtol=0, atol=0)


def test_a_grey_picture_becomes_black():
    assert not balance_exposure(torch.full((3, 97, 97), 90, dtype=torch.uint8)).any()


def test_balanced_input_is_imagenets_of_the_balanced_picture():
    image = photo(20, 90)
    balanced = balance_exposure(image) / 255
    expected = torchvision.transforms.functional.normalize(balanced, IMAGENET_MEANS, IMAGENET_DEVIATIONS)
    torch.testing.assert_close(to_network_input(image, space="balanced"), expected)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_balanced_exposure_can_be_traced():
    traced = torch.jit.trace(balance_exposure, photo(20, 90))
    torch.testing.assert_close(traced(photo(60, 250)), balance_exposure(photo(60, 250)))
