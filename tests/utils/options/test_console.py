"""What the console says of epochs and sets, and what a checkpoint says of its head."""

import numpy as np

from datasets.naming import KINDS
from datasets.places import ImageSet
from tests.tiny import write_idda, write_robotcar
from utils.evaluation.recall import EvaluationSet
from utils.options.arguments import head_trained
from utils.options.evaluation_sets import evaluation_sets, format_sets
from utils.options.parsers import eval_parser
from utils.retrieval.screening import Screening
from utils.runs.history import epoch_line
from utils.system.logs import LOGGER


def test_an_epoch_is_told_in_short_names():
    losses = {"loss_triplet": 0.33161, "loss_semantic": 2.2671, "loss_discriminator_source": 1e-7}
    figures = {"val_recall@1": 21.875, "val_recall@5": 50.0, "a_recall@b\n_recall@1": 100.0, "miou": 35.77}
    line = epoch_line(losses, figures)
    assert line == r"loss triplet 0.332, semantic 2.27, D(source) 1e-07; R@1 val 21.9, a_recall@b\n 100.0; mIoU 35.8"
    assert epoch_line({"loss_triplet": 0.5}, {}) == "loss triplet 0.5"


def image_set(folder: str, count: int) -> ImageSet:
    return ImageSet(
        folder, tuple(f"{folder}/{i}.png" for i in range(count)), np.zeros((count, 2)), np.array([""] * count)
    )


def test_sets_are_one_table():
    sets = [
        EvaluationSet("val", image_set("town3/g", 3), image_set("town3/a b/q", 12), KINDS["iddav2"], (5.0,), 0.5),
        EvaluationSet("night\n", image_set("/data/o+p", 3), image_set("/data/n", 1), KINDS["utm"], (25.0, 2.5), 1.0),
    ]
    assert format_sets(sets).splitlines() == [
        "set      queries  gallery         within  camera  scale  folders",
        "-" * 55,
        "val           12        3            5 m    same    0.5  a b/q in g",
        r"night\n        1        3  25 m or 2.5 m     any      1  n in o+p",
    ]


def test_a_checkpoint_tells_whether_its_head_was_trained():
    assert not head_trained({"record": {"arguments": {"sem_loss_weight": 0.0}}})
    for training in ({}, {"record": {}}, {"record": {"arguments": {"sem_loss_weight": 0.5}}}):
        assert head_trained(training)


def test_conditions_of_one_kind_are_told_once(tmp_path, monkeypatch):
    write_idda(tmp_path / "idda", places=2)
    write_robotcar(tmp_path / "robotcar", places=2)
    said = []
    monkeypatch.setattr(LOGGER, "info", lambda text, *values: said.append(text % values))
    flags = ["--resume=x", f"--dataset_root_val={tmp_path / 'idda'}", f"--dataset_root_test={tmp_path / 'robotcar'}"]
    sets = evaluation_sets(eval_parser().parse_args([*flags, "--eval_scale", "1"]), Screening("error"))
    said = [line for line in said if not line.startswith("positions of ")]
    assert [s.name for s in sets] == ["val", "rain", "snow", "sun", "night"]
    said = [line for line in said if not line.startswith("positions of")]
    assert [line.split(":")[0] for line in said[:2]] == ["--dataset_root_val", "--dataset_root_test"]
    assert "kind iddav2" in said[0] and "kind utm" in said[1] and said[2] == format_sets(sets)
    assert said[3:] == [
        "fewer than 20 gallery images, so recalls count those there are: val (4), rain (2), snow (2), sun (2), night (2)"
    ]
