"""Event files and attention pictures."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.naming import class_colours
from datasets.reading.transforms import read_image, scale_image
from models import build_model
from tests.tiny import place_picture
from utils.report.attention import attention_span, look_at, overlay
from utils.retrieval.embedding import EmbeddingOptions
from utils.training import events
from utils.training.events import EventWriter, attention_pictures


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """What the log got."""
    lines: list[str] = []
    for level in ("info", "warning"):
        monkeypatch.setattr(events.LOGGER, level, lambda text, *values: lines.append(text % values))
    return lines


def read_back(folder):
    """Curves (name -> step, value) and pictures (name -> step, array) in a folder of event files."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard (pip install tensorboard)"
    )
    found = accumulator.EventAccumulator(str(folder))
    found.Reload()
    tags = found.Tags()
    return (
        {name: [(e.step, e.value) for e in found.Scalars(name)] for name in tags["scalars"]},
        {name: [(e.step, e.width, e.height) for e in found.Images(name)] for name in tags["images"]},
    )


def test_curves_and_pictures_are_written(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard (pip install tensorboard)")
    writer = EventWriter(tmp_path)
    assert writer.active
    writer.scalars(1, {"loss_triplet": 0.5, "miou": None})
    writer.scalars(2, {"loss_triplet": 0.25, "miou": 40.0})
    writer.images(2, "attention", np.zeros((4, 6, 3), np.uint8))
    # flushed: a run that is killed now loses nothing
    curves, pictures = read_back(tmp_path)
    assert curves == {"loss_triplet": [(1, 0.5), (2, 0.25)], "miou": [(2, 40.0)]}
    assert pictures == {"attention": [(2, 6, 4)]}
    writer.close()
    writer.scalars(3, {"loss_triplet": 0.0})
    assert read_back(tmp_path)[0] == curves


def test_a_run_that_goes_on_hides_what_the_interrupted_one_wrote_of_later_steps(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard (pip install tensorboard)")
    for first, values in ((0, (1.0, 2.0, 3.0)), (2, (20.0,))):
        writer = EventWriter(tmp_path, first)
        for step, value in enumerate(values, max(1, first)):
            writer.scalars(step, {"x": value})
        writer.close()
    assert read_back(tmp_path)[0] == {"x": [(1, 1.0), (2, 20.0)]}


def test_without_tensorboard_one_line_and_nothing_else(tmp_path, monkeypatch, said):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    writer = EventWriter(tmp_path)
    assert not writer.active
    writer.scalars(1, {"x": 1.0})
    writer.images(1, "y", np.zeros((2, 2, 3), np.uint8))
    writer.close()
    assert len(said) == 1 and "pip install tensorboard" in said[0] and not list(tmp_path.iterdir())


def test_a_run_goes_on_when_events_cannot_be_written_any_more(tmp_path, monkeypatch, said):
    class Full:
        def __init__(self, *_, **__):
            self.add_scalar = self.flush = lambda *_: None

        def add_image(self, *_, **__):
            raise OSError(28, "No space left on device")

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Full))
    writer = EventWriter(tmp_path)
    writer.scalars(1, {"x": 1.0})
    assert writer.active and not said
    writer.images(1, "y", np.zeros((2, 2, 3), np.uint8))
    writer.close()
    assert not writer.active and len(said) == 1 and "No space left" in said[0] and "goes on without" in said[0]


def test_a_folder_that_cannot_be_written_does_not_stop_a_run(tmp_path, said):
    pytest.importorskip("tensorboard", reason="needs tensorboard (pip install tensorboard)")
    (tmp_path / "file").write_text("")
    writer = EventWriter(tmp_path / "file/events")
    writer.scalars(1, {"x": 1.0})
    writer.close()
    assert len(said) == 1 and "tensorboard cannot be used" in said[0] and "file/events" in said[0]


def test_pictures_show_photo_attention_and_classes(tmp_path):
    torch.manual_seed(0)
    model = build_model("resnet18", num_classes=17).train()
    paths = []
    for place in range(2):
        paths.append(str(tmp_path / f"@{place}@0@.png"))
        Image.fromarray(place_picture(place, 5, 0, (224, 200))).save(paths[-1])
    pictures = attention_pictures(model, paths, 0.5, EmbeddingOptions())
    assert model.training
    assert [name for name, _ in pictures] == ["0_@0@0@", "1_@1@0@"]
    model.eval()
    span = attention_span([look_at(model, path, 0.5, EmbeddingOptions()) for path in paths])
    for path, (_, picture) in zip(paths, pictures):
        assert picture.dtype == np.uint8 and picture.shape == (100, 3 * 112, 3)
        photo, heated, classes = np.split(picture, 3, axis=1)
        image = scale_image(read_image(path), 0.5)
        np.testing.assert_array_equal(photo, image.permute(1, 2, 0).numpy())
        with torch.inference_mode():
            batch = model.prepare(image[None])
            predicted = model.segment(batch)[0].argmax(0).numpy()
            attention = model.attend(batch)[0, 0].numpy()
        np.testing.assert_array_equal(classes, class_colours(17)[predicted])
        # the report's heat map: within this photo's own network output, relative to its mean
        look = look_at(model, path, 0.5, EmbeddingOptions())
        np.testing.assert_allclose(
            look.attention[0, 0] / look.attention[-1, -1], attention[0, 0] / attention[-1, -1], 1e-3
        )
        np.testing.assert_array_equal(heated, np.asarray(overlay(look, span)))
    Path(paths[0]).unlink()
    assert [name for name, _ in attention_pictures(model, paths, 0.5, EmbeddingOptions())] == ["1_@1@0@"]
