"""One small network and what it finds in two small sets, for all tests of the report."""

from pathlib import Path

import pytest

from datasets.naming import KINDS
from datasets.places import load_image_set
from models import build_model
from tests.tiny import write_idda, write_robotcar
from tests.utils.report.sets import OPTIONS, idda_set
from utils.evaluation.recall import EvaluationSet, SetResult, evaluate_places
from utils.evaluation.segmentation import evaluate_segmentation
from utils.report import attention, theme
from utils.system.seeding import seed_torch


@pytest.fixture(scope="package", autouse=True)
def small_reports():
    """Plots of fewer pixels, and fewer images looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theme, "PRINT_DPI", 100)
        patch.setattr(theme, "SCREEN_DPI", 90)
        patch.setattr(attention, "MAX_LOOKS", 8)
        patch.setattr(attention, "EFFECT_IMAGES", 1)
        yield


@pytest.fixture(scope="package")
def model():
    seed_torch(0, "report test")
    return build_model("resnet18").eval()


@pytest.fixture(scope="package")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("report_data")
    write_idda(root / "idda", places=5)
    write_robotcar(root / "robotcar", places=5)
    return root


@pytest.fixture(scope="package")
def results(data, model) -> list[SetResult]:
    overcast = load_image_set([data / "robotcar" / "overcast"])
    night = EvaluationSet(
        "robotcar/night", overcast, load_image_set([data / "robotcar" / "night"]), KINDS["utm"], (25.0, 5.0), 1.0
    )
    return evaluate_places(model, [idda_set(data), night], OPTIONS)


@pytest.fixture(scope="package")
def confusion(results, model):
    return evaluate_segmentation(model, results[0].set.gallery.paths[:3], OPTIONS)
