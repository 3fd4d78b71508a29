"""SegVPR: encoder, semantic head, attention and pooling put together."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.attention import MultiScaleAttention, UniformAttention
from models.config import STAGES, NetworkConfig
from models.domain import Discriminator
from models.encoder import Encoder, fold_batch_norm, load_pretrained
from models.heads import build_head
from models.input import check_images, to_network_input
from models.pooling import MultiScalePooling, widen
from models.resize import resize_to, to_longer_side

ATTENTION_STAGE = 3


class SegVPROutput(NamedTuple):
    """What one forward pass gives.

    Attributes
    ----------
    embeddings : (B, D) descriptors, not normalised.
    logits : (B, classes, H, W) at the input's size, multiplied by the detached attention (unless the network is built
        without guidance); None if not asked for.
    attention : (B, 1, h - 2, w - 2) positive map, where (h, w) is the size of stage 3.
    """

    embeddings: Tensor
    logits: Tensor | None
    attention: Tensor


class SegVPR(nn.Module):
    """Place recognition by semantics-guided attention. Build it with `build_model`.

    `describe` takes 8-bit images and does all. The other methods take network input: float (B, 3, H, W), sides at least
    97 px, as `prepare` makes it from 8-bit images in the network's own input space.

    Attributes
    ----------
    image_size : longer side in pixels that photos have when training embeds them; None if it is not known.
    """

    def __init__(self, config: NetworkConfig, train_enc_from: str | int = "all", freeze_bn: bool = False) -> None:
        super().__init__()
        self.config = config
        self.image_size: int | None = None
        self.encoder = Encoder(config.arch, train_enc_from, freeze_bn)
        channels = self.encoder.channels
        self.head = build_head(config.semnet, channels, config.num_classes)
        uniform = config.attention == "none"
        self.attention = UniformAttention() if uniform else MultiScaleAttention(channels[ATTENTION_STAGE])
        self.pooling = MultiScalePooling()
        self.discriminator = Discriminator(config.num_classes)
        self.descriptor_dim = sum(channels[stage] for stage in config.scale_indexes)

    @property
    def _last_embedded(self) -> int:
        return max(ATTENTION_STAGE, *self.config.scale_indexes)

    def prepare(self, images: Tensor) -> Tensor:
        """RGB uint8 (B, 3, H, W) on any device -> network input in input space, on the model's device in its number type.

        ValueError for images of another type or shape.
        """
        check_images(images)
        weight = self.encoder.conv1.weight
        images = images.to(weight.device, non_blocking=True)
        wide = torch.promote_types(weight.dtype, torch.float32)
        images = to_network_input(images, wide, self.config.input).to(weight.dtype)
        return images.contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def describe(self, images: Tensor) -> Tensor:
        """Descriptors (B, `descriptor_dim`) of RGB uint8 images (B, 3, H, W) on any device, sides at least 97 px.

        Images are first brought to `image_size`, if it is known. In eval mode, whatever mode the model is in. Descriptors
        are compared by Euclidean distance. ValueError for images of another type or shape, or too small.
        """
        check_images(images)
        if self.image_size is not None:
            images = to_longer_side(images, self.image_size)
        with evaluating(self):
            return self.embed(self.prepare(images))

    def embed(self, images: Tensor) -> Tensor:
        """Descriptors (B, `descriptor_dim`); runs neither the head nor stages that nothing needs."""
        features = self.encoder(images, last_stage=self._last_embedded)
        return self._pool(features, self.attention(features[ATTENTION_STAGE]))

    def segment(self, images: Tensor) -> Tensor:
        """Class logits (B, classes, H, W), never weighted by attention."""
        return self._logits(self.encoder(images), images)

    def attend(self, images: Tensor) -> Tensor:
        """Attention map (B, 1, h - 2, w - 2), where (h, w) is the size of stage 3."""
        return self.attention(self.encoder(images, last_stage=ATTENTION_STAGE)[ATTENTION_STAGE])

    def forward(self, images: Tensor, with_logits: bool = True) -> SegVPROutput:
        """Descriptors, attention-weighted logits and attention, in train and in eval mode alike."""
        last = max(self.head.stages) if with_logits else 0
        features = self.encoder(images, last_stage=max(last, self._last_embedded))
        attention = self.attention(features[ATTENTION_STAGE])
        logits = None
        if with_logits:
            logits = self._logits(features, images)
            if self.config.guidance and self.config.attention != "none":
                # the triplet loss does not see a relative map's scale, which then drifts: logits must not follow it
                guide = relative(attention) if self.config.attention == "after_norm" else attention
                logits = logits * resize_to(guide.detach(), images.shape[-2:])
        return SegVPROutput(self._pool(features, attention), logits, attention)

    def parameter_groups(self, lr: float) -> list[dict]:
        """What an optimiser trains at which rate, in the order of released checkpoints; the head learns ten times as fast.

        The discriminator, which has an optimiser of its own, is not among it, nor is GeM's power, which stays as it is.
        """
        head = self.head.parameter_groups()
        parts = {"encoder": self.encoder.parameters(), "head": head["head"], "attention": self.attention.parameters()}
        parts |= {name: parameters for name, parameters in head.items() if name not in parts}
        return [
            {"name": name, "lr": 10 * lr if name in head else lr, "params": [p for p in found if p.requires_grad]}
            for name, found in parts.items()
        ]

    def embedding_config(self) -> dict[str, Any]:
        """The part of the configuration that `embed` depends on."""
        plain = self.config.to_plain()
        return {name: plain[name] for name in ("arch", "scale_indexes", "attention", "input")}

    def embedding_state(self) -> dict[str, Tensor]:
        """The part of the `state_dict` that `embed` depends on in eval mode: no head, no discriminator, no unused stage."""
        unused = [
            "head.",
            "discriminator.",
            *(f"encoder.layer{stage}." for stage in STAGES if stage > self._last_embedded),
        ]
        return {
            name: value
            for name, value in self.state_dict().items()
            if not name.startswith(tuple(unused)) and not name.endswith(".num_batches_tracked")
        }

    def for_embedding(self) -> "SegVPR":
        """A copy in eval mode for `embed` and `attend` alone: BN folded into the convolutions, no head, no discriminator."""
        twin = copy.deepcopy(self).eval().requires_grad_(False)
        fold_batch_norm(twin.encoder)
        twin.pooling.fix_power()
        del twin.head, twin.discriminator
        return twin

    def _logits(self, features: dict[int, Tensor], images: Tensor) -> Tensor:
        return resize_to(self.head(*(features[stage] for stage in self.head.stages)), images.shape[-2:])

    def _pool(self, features: dict[int, Tensor], attention: Tensor) -> Tensor:
        """Weigh the first and the last pooled stage by attention, once each, and pool all.

        As released the map multiplies features before their norm is taken; `after_norm` divides it by its mean over the
        image and has it weigh what GeM averages.
        """
        pooled = self.config.scale_indexes
        weighted = {pooled[0], pooled[-1]} if self.config.attention != "none" else set()
        stages = [features[stage] for stage in pooled]
        maps = [resize_to(attention, x.shape[-2:]) if stage in weighted else None for stage, x in zip(pooled, stages)]
        if self.config.attention == "after_norm":
            return self.pooling(stages, [None if m is None else relative(m) for m in maps])
        return self.pooling([x if m is None else x * m for x, m in zip(stages, maps)])


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within it, the model is in eval mode; behind it, in the mode that it was in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def relative(attention: Tensor) -> Tensor:
    """A map (B, 1, h, w) in at least float32, divided by its mean over the image."""
    attention = widen(attention)
    return attention / attention.mean(dim=(-2, -1), keepdim=True)


def build_model(
    arch: str = "resnet50",
    semnet: str = "deeplab",
    num_classes: int = 17,
    scale_indexes: Sequence[int] = (3, 4),
    pretrain: str | Path | None = None,
    train_enc_from: str | int = "all",
    attention: str = "released",
    guidance: bool = True,
    input: str = "released",
    freeze_bn: bool = False,
) -> SegVPR:
    """Build a SegVPR network.

    Parameters
    ----------
    arch : `resnet18`, `resnet50` or `resnet101`.
    semnet : `deeplab`, `pspnet` or `fcn`.
    scale_indexes : the encoder stages that are pooled: an ascending non-empty subset of 1..4.
    pretrain : encoder weights: None, `"imagenet"` (downloaded) or the path of a `.pth` state_dict.
    train_enc_from : `"all"`, `"none"`, or the first encoder stage (1..4) that is trained.
    attention : where the map acts: before the norm (`released`), `after_norm`, or `none`.
    guidance : whether the map multiplies the source logits.
    input : the input space the network expects, `released`, `imagenet` or `balanced` (`models.input.to_network_input`).
    freeze_bn : keep the encoder's running statistics and BN parameters as they are, in train mode too.

    Raises
    ------
    ValueError, OSError : an argument that is not offered, or weights that cannot be had; the message names it.
    """
    config = NetworkConfig(arch, semnet, num_classes, tuple(scale_indexes), attention, guidance, input)
    model = SegVPR(config, train_enc_from, freeze_bn)
    load_pretrained(model.encoder, arch, pretrain)
    return model
