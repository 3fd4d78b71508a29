"""The network's parts: shapes, what is frozen, scales, weights."""

import pytest
import torch

from models import build_model
from models.config import INPUTS
from models.input import to_network_input
from models.pooling import MultiScalePooling
from tests.golden_model import pictures


@pytest.mark.parametrize("semnet", ["deeplab", "pspnet", "fcn"])
@pytest.mark.parametrize("scales, dim", [((3, 4), 768), ((4,), 512), ((1, 2, 3, 4), 960), ((1, 2), 192)])
@torch.no_grad()
def test_shapes_for_every_choice_of_scales(semnet, scales, dim):
    model = build_model("resnet18", semnet, num_classes=5, scale_indexes=scales).eval()
    images = pictures("shape", 2, 97, 131)
    output = model(images)
    assert output.embeddings.shape == (2, dim) == (2, model.descriptor_dim)
    assert output.logits.shape == (2, 5, 97, 131) == model.segment(images).shape
    assert output.attention.shape == (2, 1, 5, 7)
    torch.testing.assert_close(model.embed(images), output.embeddings)
    torch.testing.assert_close(model.attend(images), output.attention)


@pytest.mark.parametrize("scales", [(), (4, 3), (3, 3), (0, 4), (5,)])
def test_odd_scales_are_refused(scales):
    with pytest.raises(ValueError, match="scale_indexes"):
        build_model("resnet18", scale_indexes=scales)


def test_small_images_are_refused():
    with pytest.raises(ValueError, match="128x96 px are too small"):
        build_model("resnet18").embed(torch.zeros(1, 3, 96, 128))


PIXELS = torch.randint(0, 256, (2, 3, 100, 120), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("space", INPUTS)
@torch.no_grad()
def test_8_bit_images_are_described_in_the_networks_own_input_space(space):
    torch.manual_seed(0)
    model = build_model("resnet18", input=space).train()
    statistics = model.encoder.bn1.running_mean.clone()
    found = model.describe(PIXELS)
    assert model.training and model.head.training and torch.equal(model.encoder.bn1.running_mean, statistics)
    prepared = to_network_input(PIXELS, space=space)
    assert torch.equal(model.prepare(PIXELS), prepared)
    torch.testing.assert_close(found, model.eval().embed(prepared))
    assert model.double().describe(PIXELS).dtype == torch.float64


@pytest.mark.parametrize(
    "images, reason",
    [
        (PIXELS.float(), r"not float32 of shape \(2, 3, 100, 120\); give the 8-bit pixels"),
        (PIXELS[0], r"images\[None\]"),
        (PIXELS.permute(0, 2, 3, 1), r"images\.permute\(0, 3, 1, 2\)"),
        (PIXELS[:, :1], r"\(2, 1, 100, 120\)"),
        (PIXELS.numpy(), "not ndarray"),
        (PIXELS[..., :90], "too small"),
    ],
)
def test_what_is_no_8_bit_image_is_refused(images, reason):
    with pytest.raises(ValueError, match=reason):
        build_model("resnet18").describe(images)


def test_8_bit_images_are_no_network_input():
    with pytest.raises(ValueError, match=r"describe\(\) or prepare\(\)"):
        build_model("resnet18").embed(PIXELS)
    with pytest.raises(ValueError, match="input: 'bgr' is not one of released, imagenet"):
        to_network_input(PIXELS, space="bgr")


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_bn_affine_is_frozen_save_in_downsample(arch):
    encoder = build_model(arch).encoder
    frozen = {name for name, p in encoder.named_parameters() if not p.requires_grad}
    expected = {
        f"{name}.{leaf}"
        for name, module in encoder.named_modules()
        if isinstance(module, torch.nn.BatchNorm2d) and "downsample" not in name
        for leaf in ("weight", "bias")
    }
    assert frozen == expected and "bn1.weight" in frozen


def test_an_encoder_may_be_frozen_whole():
    model = build_model("resnet18", semnet="fcn", train_enc_from="none")
    groups = {group["name"]: len(group["params"]) for group in model.parameter_groups(0.1)}
    assert groups["encoder"] == 0 and groups["head"] > 0 and groups["attention"] > 0


def test_train_enc_from_freezes_the_stages_before():
    encoder = build_model("resnet18", train_enc_from="3").encoder
    trained = {name.split(".")[0] for name, p in encoder.named_parameters() if p.requires_grad}
    assert trained == {"layer3", "layer4"}


def test_frozen_batch_norms_keep_statistics_and_parameters():
    model = build_model("resnet18", freeze_bn=True).train()
    norms = [m for m in model.encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and not any(m.training or m.weight.requires_grad or m.bias.requires_grad for m in norms)
    before = {key: value.clone() for key, value in model.encoder.named_buffers()}
    images = pictures("bn", 2, 97, 97)
    trained = model(images).embeddings
    assert all(torch.equal(value, before[key]) for key, value in model.encoder.named_buffers())
    torch.testing.assert_close(trained, model.eval().embed(images))
    assert model.train().encoder.layer3.training and model.encoder.layer3[0].conv1.weight.requires_grad


def test_the_fcn_head_sums_classifiers_on_three_stages_at_the_finest_grid():
    model = build_model("resnet18", "fcn", num_classes=2).double().eval()
    head = model.head
    assert head.stages == (2, 3, 4)
    assert [group["name"] for group in model.parameter_groups(1.0)] == ["encoder", "head", "attention"]
    assert [tuple(c.weight.shape) for c in head.classifiers] == [(2, 128, 1, 1), (2, 256, 1, 1), (2, 512, 1, 1)]
    features = model.encoder(pictures("fcn", 1, 128, 160).double())
    stages = [features[stage] for stage in head.stages]
    with torch.no_grad():
        for classifier in head.classifiers:
            classifier.bias.normal_()
        expected = torch.zeros(1, 2, 16, 20, dtype=torch.float64)
        for x, classifier in zip(stages, head.classifiers):
            scores = torch.einsum("bchw,kc->bkhw", x, classifier.weight[..., 0, 0]) + classifier.bias.view(1, -1, 1, 1)
            expected += torch.nn.functional.interpolate(scores, (16, 20), mode="bilinear", align_corners=True)
        torch.testing.assert_close(head(*stages), expected)
    head(*stages).sum().backward()
    assert all(classifier.weight.grad.abs().sum() > 0 for classifier in head.classifiers)


def test_every_head_learns_through_the_network_whatever_is_pooled():
    for semnet in ("deeplab", "pspnet", "fcn"):
        model = build_model("resnet18", semnet, num_classes=3, scale_indexes=(2, 3))
        output = model(pictures("pooled", 2, 97, 97))
        assert output.logits.shape == (2, 3, 97, 97) and output.embeddings.shape == (2, 384)
        output.logits.sum().backward()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.head.parameters())


def test_running_statistics_update_in_train_mode_alone():
    model = build_model("resnet18")
    before = model.encoder.bn1.running_mean.clone()
    model.eval().embed(pictures("bn", 2, 97, 97))
    assert torch.equal(model.encoder.bn1.running_mean, before)
    model.train().embed(pictures("bn", 2, 97, 97))
    assert not torch.equal(model.encoder.bn1.running_mean, before)


def test_pooling_against_a_loop():
    x = torch.rand(2, 4, 3, 5, dtype=torch.float64)
    expected = torch.empty(2, 4, dtype=torch.float64)
    for b in range(2):
        total = torch.zeros(4, dtype=torch.float64)
        for i in range(3):
            for j in range(5):
                v = x[b, :, i, j]
                total += (v / (v.norm() + 1e-6)).clamp(min=1e-6) ** 3
        expected[b] = (total / 15) ** (1 / 3)
    torch.testing.assert_close(MultiScalePooling().double()([x]), expected)


def test_weights_from_a_file_and_from_a_wrong_one(tmp_path):
    source = build_model("resnet18").encoder.state_dict()
    torch.save({**source, "fc.weight": torch.zeros(1000, 512)}, tmp_path / "w.pth")
    model = build_model("resnet18", pretrain=tmp_path / "w.pth")
    assert all(torch.equal(value, source[key]) for key, value in model.encoder.state_dict().items())
    with pytest.raises(ValueError, match=r"w\.pth: not weights of resnet50"):
        build_model("resnet50", pretrain=tmp_path / "w.pth")
    with pytest.raises(FileNotFoundError, match="absent"):
        build_model("resnet18", pretrain=tmp_path / "absent.pth")


def test_a_failed_download_says_how_to_go_on(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(OSError, match=r"--pretrain FILE\.pth"):
        build_model("resnet18", pretrain="imagenet")


@pytest.mark.parametrize(
    "arguments", [{"arch": "vgg"}, {"semnet": "unet"}, {"train_enc_from": "7"}, {"num_classes": 0}]
)
def test_unknown_choices_are_named(arguments):
    with pytest.raises(ValueError, match=str(next(iter(arguments.values())))):
        build_model(**{"arch": "resnet18", **arguments})


@pytest.mark.parametrize("arch, semnet, scales", [("resnet18", "pspnet", (3, 4)), ("resnet50", "deeplab", (1, 3))])
@torch.no_grad()
def test_a_copy_for_embedding_gives_the_same_descriptors(arch, semnet, scales):
    model = build_model(arch, semnet, scale_indexes=scales)
    for module in model.encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # statistics and affine parameters that a fold must not lose
            module.running_mean.normal_(generator=torch.manual_seed(1)), module.running_var.uniform_(0.5, 2)
            module.weight.uniform_(0.5, 1.5), module.bias.normal_()
    model.double().eval()
    images = pictures("fold", 2, 97, 131).double()
    twin = model.for_embedding()
    torch.testing.assert_close(twin.embed(images), model.embed(images), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(twin.attend(images), model.attend(images), rtol=1e-10, atol=1e-12)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in twin.encoder.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in model.encoder.modules())


def test_a_copy_for_embedding_pools_with_its_own_power():
    model = build_model("resnet18").eval()
    model.pooling.p.fill_(2.5)
    images = pictures("power", 1, 97, 97)
    with torch.no_grad():
        torch.testing.assert_close(model.for_embedding().embed(images), model.embed(images), rtol=1e-4, atol=1e-6)
