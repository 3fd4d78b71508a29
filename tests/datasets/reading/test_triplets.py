"""What a training batch reads."""

import pytest
import torch

from datasets.places import ImageSet, load_image_set
from datasets.reading.augmentation_settings import AugmentationSettings
from datasets.reading.transforms import read_image
from datasets.reading.triplets import LoadFailure, StepPlan, TrainingBatches
from tests.tiny import write_idda


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    root = write_idda(tmp_path_factory.mktemp("idda"))
    return load_image_set([root / "town10/gallery"]), load_image_set([root / "town10/queries_rain"])


def plan(**changes) -> StepPlan:
    return StepPlan(
        **{
            "queries": (0, 3),
            "positives": (0, 3),
            "negatives": ((2, 4), (1, 5)),
            "targets": (),
            "keys": ((0, 1), (0, 2)),
            **changes,
        }
    )


def test_a_batch_is_ordered_cropped_alike_and_repeatable(town):
    dataset = TrainingBatches(*town)
    batch, again = dataset[plan()], dataset[plan()]
    assert batch.images.shape == (8, 3, 102, 108) and batch.labels.shape == (8, 102, 108) and batch.target is None
    assert torch.equal(batch.images, again.images) and torch.equal(batch.labels, again.labels)
    gallery, queries = town
    expected = [queries.paths[0], queries.paths[3], *(gallery.paths[i] for i in (0, 3, 2, 4, 1, 5))]
    files = dataset.files(plan())
    assert files == expected
    for triplet, rows in ((0, (0, 2, 4, 5)), (1, (1, 3, 6, 7))):
        offsets = {find_crop(read_image(files[row]), batch.images[row]) for row in rows}
        assert len(offsets) == 1, f"triplet {triplet} was cut in several ways"
    assert not torch.equal(dataset[plan(keys=((0, 9), (0, 8)))].images, batch.images)


def test_each_image_is_altered_by_its_own_draw_whatever_else_is_in_the_batch(town):
    plain, altered = (
        TrainingBatches(*town),
        TrainingBatches(*town, augmentation=AugmentationSettings(("noise",), zoom=0.7)),
    )
    batch, again = altered[plan()], altered[plan()]
    assert torch.equal(batch.images, again.images) and torch.equal(batch.labels, again.labels)
    assert batch.images.shape == plain[plan()].images.shape
    assert not torch.equal(batch.images, plain[plan()].images) and not torch.equal(batch.labels, plain[plan()].labels)
    # the second triplet by itself, as another process reads it
    second = altered[plan(queries=(3,), positives=(3,), negatives=((1, 5),), keys=((0, 2),))]
    assert torch.equal(second.images, batch.images[[1, 3, 6, 7]])
    # one picture in several places of a triplet is altered in several ways
    alike = altered[plan(positives=(0, 3), negatives=((0, 0), (3, 3)))]
    assert not torch.equal(alike.images[2], alike.images[4]) and not torch.equal(alike.images[4], alike.images[5])


def find_crop(full: torch.Tensor, crop: torch.Tensor) -> tuple[int, int, bool]:
    """Where a crop was cut, and whether it was flipped."""
    h, w = crop.shape[-2:]
    for flip in (False, True):
        wanted = crop.flip(-1) if flip else crop
        for top in range(full.shape[-2] - h):
            for left in range(full.shape[-1] - w):
                if torch.equal(full[:, top, left : left + 1], wanted[:, 0, :1]) and torch.equal(
                    full[:, top : top + h, left : left + w], wanted
                ):
                    return top, left, flip
    raise AssertionError("the crop is not a part of its image")


def test_target_images_are_resized(town):
    dataset = TrainingBatches(*town, target_paths=town[0].paths, target_size=(120, 100))
    assert dataset[plan(targets=(1, 2, 3))].target.shape == (3, 3, 100, 120)


def test_two_sizes_in_a_batch_are_named(tmp_path, town):
    from PIL import Image

    odd = tmp_path / "@1@2@.png"
    Image.new("RGB", (50, 60)).save(odd)
    gallery = ImageSet("made", (str(odd), *town[0].paths[1:]), town[0].positions, town[0].cameras)
    outcome = TrainingBatches(gallery, town[1])[plan()]
    assert isinstance(outcome, LoadFailure)
    assert str(odd) in outcome.message and town[1].paths[0] in outcome.message and "50x60" in outcome.message
