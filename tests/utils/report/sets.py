"""What the tests of the report share: a set, a history, and a report made at once."""

from pathlib import Path

from datasets.naming import KINDS
from datasets.places import load_image_set
from utils.evaluation.recall import EvaluationSet
from utils.evaluation.results import results_dict
from utils.report.write import write_report
from utils.retrieval.embedding import EmbeddingOptions

OPTIONS = EmbeddingOptions(batch_size=8, num_workers=0)
HISTORY = [
    {
        "epoch": e,
        "loss_triplet": 0.2 / e,
        "loss_semantic": 1.0 / e,
        "lr_encoder": 0.01 / e,
        "lr_head": 0.1 / e,
        "val_recall@1": 20.0 * e,
        "val_recall@5": 25.0 * e,
        "miou": 10.0 * e,
    }
    for e in (1, 2, 3)
]


def idda_set(data: Path, name: str = "val") -> EvaluationSet:
    town = data / "idda" / "town3"
    gallery, queries = load_image_set([town / "gallery"]), load_image_set([town / "queries_rain"])
    return EvaluationSet(name, gallery, queries, KINDS["iddav2"], (5.0,), 1.0)


def make(folder: Path, model, results, confusion=None, checkpoint="runs/a/best.pth", **more) -> str:
    content = results_dict(checkpoint, model.config, results, confusion)
    path = write_report(folder, model, content, results, confusion, OPTIONS, **more)
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")
