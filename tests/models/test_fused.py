"""Convolutions fused with what follows them: the same descriptors and attention, for any sizes of images in turn."""

import copy

import pytest
import torch

from models import build_model
from models.fused import FusedConv, can_fuse, fuse_convolutions
from tests.golden_model import pictures

needs_onednn = pytest.mark.skipif(not can_fuse(torch.zeros(1)), reason="oneDNN does not fuse convolutions here")


@needs_onednn
@pytest.mark.parametrize("arch, scales", [("resnet18", (1, 2, 3, 4)), ("resnet50", (3, 4)), ("resnet18", (1,))])
@torch.no_grad()
def test_fused_convolutions_give_the_same_descriptors(arch, scales):
    torch.manual_seed(0)
    model = build_model(arch, scale_indexes=scales).eval()
    fused = model.for_embedding().to(memory_format=torch.channels_last)
    fuse_convolutions(fused.encoder)
    assert sum(isinstance(module, FusedConv) for module in fused.modules()) == sum(
        isinstance(module, torch.nn.Conv2d) for module in model.encoder.modules()
    )
    for batch, height, width in ((2, 97, 131), (1, 131, 97), (2, 97, 131)):
        images = pictures("fused", batch, height, width)
        before = images.clone()
        for layout in (torch.contiguous_format, torch.channels_last):
            torch.testing.assert_close(
                fused.embed(images.to(memory_format=layout)), model.embed(images), rtol=1e-4, atol=1e-6
            )
        torch.testing.assert_close(fused.attend(images), model.attend(images), rtol=1e-4, atol=1e-6)
        assert torch.equal(images, before)


def test_other_types_and_a_torch_without_the_operators_are_not_fused(monkeypatch):
    assert not can_fuse(torch.zeros(1, dtype=torch.float64)) and not can_fuse(torch.zeros(1, device="meta"))
    monkeypatch.setattr("models.fused.OPERATORS", ("no_such_operator",))
    assert not can_fuse(torch.zeros(1))


@needs_onednn
@torch.no_grad()
def test_a_fused_encoder_can_be_copied_after_its_first_use():
    fused = build_model("resnet18").for_embedding()
    fuse_convolutions(fused.encoder)
    images = pictures("copied", 1, 97, 113)
    found = fused.embed(images)
    twin = copy.deepcopy(fused)
    torch.testing.assert_close(twin.embed(images), found)
    twin.load_state_dict({name: 0 * value for name, value in twin.state_dict().items()})
    assert not torch.allclose(twin.embed(images), found), "weights that are loaded take effect"
