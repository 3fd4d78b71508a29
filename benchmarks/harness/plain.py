"""The plain float32 way, as in the reference, with which the benchmarks compare.

Contiguous layout, PyTorch's default settings and optimisers, an alternating discriminator, losses read back at every step, images
normalised one by one on the CPU, and a gallery that is embedded again for every query set.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from datasets.places import ImageSet
from models import SegVPR


class PlainStep:
    """A training step on fixed tensors; see `utils.training.step.train_step` for the shapes."""

    def __init__(self, model: SegVPR, batch_size: int = 2, lr: float = 2.5e-4, d_lr: float = 1e-4) -> None:
        self.model, self.steps, self.max_steps = model.train(), 0, 250_000 / batch_size
        parts = [(model.encoder, 1), (model.head, 10), (model.attention, 1)]
        rate = lr * batch_size * 2
        groups = [{"params": [p for p in m.parameters() if p.requires_grad], "lr": k * rate} for m, k in parts]
        self.network = torch.optim.SGD(groups, lr=rate, momentum=0.9, weight_decay=0.005)
        self.domain = torch.optim.Adam(model.discriminator.parameters(), lr=d_lr * batch_size * 2, betas=(0.9, 0.99))
        self.rates = [[group["lr"] for group in o.param_groups] for o in (self.network, self.domain)]
        self.triplet = nn.TripletMarginLoss(margin=0.1**0.5, reduction="sum")

    def _domain_loss(self, probabilities: Tensor, domain: float) -> Tensor:
        patches = self.model.discriminator(probabilities)
        return F.binary_cross_entropy_with_logits(patches, torch.full_like(patches, domain))

    def __call__(self, images: Tensor, labels: Tensor, target: Tensor, num_queries: int) -> list[float]:
        model = self.model
        self.network.zero_grad()
        self.domain.zero_grad()
        output = model(images)
        queries, positives, negatives = output.embeddings.split(
            [num_queries, num_queries, len(images) - 2 * num_queries]
        )
        each = len(negatives) // num_queries
        triplet = 0
        for i in range(num_queries):
            for j in range(each):
                triplet = triplet + self.triplet(
                    queries[i : i + 1], positives[i : i + 1], negatives[None, i * each + j]
                )
        triplet = triplet / len(negatives)
        semantic = F.cross_entropy(output.logits, labels.long(), ignore_index=255)
        source, adapted = output.logits.softmax(1), model.segment(target).softmax(1)
        model.discriminator.requires_grad_(False)
        adversarial = self._domain_loss(adapted, 0.0)
        (triplet + 0.5 * semantic + 0.5 * 0.001 * adversarial).backward()
        model.discriminator.requires_grad_(True)
        own = [self._domain_loss(source.detach(), 0.0) / 2, self._domain_loss(adapted.detach(), 1.0) / 2]
        (0.5 * (own[0] + own[1])).backward()
        self.network.step()
        self.domain.step()
        self.steps += 1
        factor = (1 - min(self.steps, self.max_steps) / self.max_steps) ** 0.9
        for optimizer, rates in zip((self.network, self.domain), self.rates):
            for group, rate in zip(optimizer.param_groups, rates):
                group["lr"] = rate * factor
        return [loss.item() for loss in (triplet, semantic, adversarial, *own)]


class _Images(Dataset):
    """Images decoded, scaled and normalised one by one."""

    def __init__(self, paths: tuple[str, ...], scale: float) -> None:
        self.paths, self.scale = paths, scale

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        image = np.asarray(Image.open(self.paths[index]).convert("RGB"), np.float32)
        image = torch.from_numpy(image[:, :, ::-1] - np.array((0.485, 0.456, 0.406), np.float32)).permute(2, 0, 1)
        if self.scale != 1:
            image = F.interpolate(image[None], scale_factor=self.scale, mode="bilinear")[0]
        return image.contiguous()


@torch.no_grad()
def plain_embed(
    model: SegVPR, paths: tuple[str, ...], scale: float, device: str = "cpu", batch_size: int = 24, workers: int = 3
) -> np.ndarray:
    """Descriptors (N, D) of image files of one size."""
    model.eval()
    loader = DataLoader(_Images(paths, scale), batch_size, num_workers=workers)
    return np.concatenate([model.embed(batch.to(device)).cpu().numpy() for batch in loader])


def plain_evaluation(
    model: SegVPR, gallery: ImageSet, query_sets: list[ImageSet], scale: float, device: str = "cpu", workers: int = 3
) -> list[np.ndarray]:
    """The first 20 gallery images of every query of every set; the gallery is embedded anew for each set."""
    from utils.retrieval.exact import search  # not above: only this needs faiss, which a GPU machine may lack

    found = []
    for queries in query_sets:
        both = [plain_embed(model, s.paths, scale, device, workers=workers) for s in (gallery, queries)]
        found.append(search(*both, 20)[0])
    return found
