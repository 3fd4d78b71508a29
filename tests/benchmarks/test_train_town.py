"""The network that ships: legs over many towns, and its file in half precision."""

import json

import numpy as np
import pytest
import torch

import eval as evaluation_script
from benchmarks import train_town
from benchmarks.train_town import half_precision
from models import build_model
from tests.tiny import data_flags
from utils.options.parsers import main_parser
from utils.runs.checkpoints import content_of, load_checkpoint, save_checkpoint, write_atomically
from utils.training.optimizers import poly


def legs(words=""):
    args, extra = train_town.build_parser().parse_known_args(["--legs", "4", *words.split()])
    return args, extra


def test_legs_take_a_town_each_and_a_falling_rate():
    args, extra = legs("--lr 0.002 --attention none --precision fp32")
    parsed = [main_parser().parse_args(train_town.leg_job(args, extra, leg, None).command) for leg in range(4)]
    assert [p.lr for p in parsed] == pytest.approx([0.002 * (1 - leg / 4) ** 0.9 for leg in range(4)])
    per_leg = parsed[0].n_epochs * parsed[0].queries_per_epoch
    assert [p.lr_triplets for p in parsed] == [per_leg * left for left in (4, 3, 2, 1)]
    ends = [poly(p.lr, per_leg, p.lr_triplets) for p in parsed]
    assert ends == pytest.approx([*(p.lr for p in parsed[1:]), 0]), "each goes on where the one before stopped"
    assert [p.neg_samples for p in parsed] == [5, 20, 80, 80]
    assert len({p.dataset_root for p in parsed}) == 4 and {p.DA_datasets for p in parsed} == {None}
    assert len({p.dataset_root_val for p in parsed}) == 1 and parsed[0].dataset_root_val != parsed[0].dataset_root
    assert {p.attention for p in parsed} == {"none"}
    with pytest.raises(ValueError, match=r"--dataset_root: benchmarks\.train_town sets this flag itself"):
        train_town.shared_flags(args, ["--dataset_root", "x"])


def test_a_recipe_has_its_own_defaults_and_flags():
    args, extra = train_town.parse(["--recipe", "photos", "--legs", "2", "--precision", "fp32", "--temperature", "0.1"])
    assert (args.size, args.places, args.evaluation_towns) == ((480, 270), 120, 1)
    parsed = main_parser().parse_args(train_town.leg_job(args, extra, 1, None).command)
    assert (parsed.arch, parsed.loss, parsed.n_neg, parsed.temperature) == ("resnet50", "pairs", 0, 0.1)
    assert parsed.freeze_bn and parsed.class_weights and parsed.input == "balanced" and parsed.augment == ["all"]
    assert train_town.parse([])[0].recipe == "town"


def test_the_head_learns_alone_at_the_end():
    args, extra = train_town.parse(["--recipe", "photos", "--legs", "2", "--precision", "fp32"])
    parsed = [main_parser().parse_args(train_town.leg_job(args, extra, leg, None).command) for leg in range(4)]
    assert [p.train_enc_from for p in parsed] == ["3", "3", "none", "none"]
    assert parsed[2].lr == parsed[0].lr > parsed[3].lr == parsed[1].lr
    assert [p.lr_triplets for p in parsed] == [1920, 960, 1920, 960]
    assert len({p.dataset_root for p in parsed}) == 4


def test_the_result_lies_between_the_first_and_the_last_weights(tmp_path):
    torch.manual_seed(0)
    first, last = build_model("resnet18", "fcn"), build_model("resnet18", "fcn")
    for name, model in (("first.pth", first), ("last.pth", last)):
        save_checkpoint(tmp_path / name, model, {})
    found = train_town.mixed(tmp_path / "first.pth", tmp_path / "last.pth", 0.25).state_dict()
    start, end = first.state_dict(), last.state_dict()
    conv, head = "encoder.layer3.0.conv1.weight", "head.classifiers.0.weight"
    torch.testing.assert_close(found[conv], 0.25 * start[conv] + 0.75 * end[conv])
    assert torch.equal(found[head], end[head]) and not torch.equal(start[head], end[head])


def test_a_leg_on_record_is_not_trained_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args, extra = legs("--precision fp32")
    record = {"flags": list(train_town.leg_job(args, extra, 0, None).flags), "history": [{"epoch": 1}]}
    folder = tmp_path / "runs/train_town"
    folder.mkdir(parents=True)
    (folder / "leg_000.json").write_text(json.dumps(record))
    assert train_town.train_leg(args, extra, 0) == record
    with pytest.raises(ValueError, match=r"leg_000.json: .* \(--attention was after_norm, is none\); give"):
        train_town.train_leg(args, [*extra, "--attention", "none"], 0)


# -- the file that ships ---------------------------------------------------------------------------------------------


def test_a_half_precision_file_is_read_and_evaluates_alike(trained_run, tiny_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = load_checkpoint(trained_run / "best.pth").build()
    write_atomically(tmp_path / "half.pth", content_of(whole.config, half_precision(whole.state_dict()), {}))
    assert (tmp_path / "half.pth").stat().st_size <= train_town.RECIPES["town"].largest_bytes
    read = load_checkpoint(tmp_path / "half.pth")
    assert not [name for name in read.state_dict if name.startswith("discriminator")]
    half = read.build()
    for (name, value), other in zip(whole.state_dict().items(), half.state_dict().values()):
        assert value.dtype == other.dtype, name
        if not name.startswith("discriminator"):
            exact = value.ndim <= 1
            torch.testing.assert_close(value, other, rtol=0 if exact else 1e-3, atol=0 if exact else 1e-6)
    images = torch.rand(2, 3, 97, 113, generator=torch.manual_seed(0)) * 255 - 110
    with torch.no_grad():
        torch.testing.assert_close(half.embed(images), whole.embed(images), rtol=1e-2, atol=1e-4)
    machine = "--eval_scale 1 --num_workers 0 --device cpu --no_report --test_q rain --test_g overcast".split()
    found = []
    for path in (trained_run / "best.pth", tmp_path / "half.pth"):
        out = tmp_path / path.stem
        flags = ["--resume", str(path), *data_flags(tiny_root)[2:6], *machine, "--output_dir", str(out)]
        assert evaluation_script.main(flags) == 0
        found.append([s["recall"]["5"] for s in json.loads((out / "results.json").read_text())["sets"]])
    np.testing.assert_allclose(found[0], found[1], atol=0.1)


def test_values_beyond_half_precision_are_named():
    state = build_model("resnet18").state_dict()
    state["encoder.conv1.weight"][0, 0, 0, 0] = 1e6
    with pytest.raises(ValueError, match=r"encoder\.conv1\.weight has values that float16 cannot hold"):
        half_precision(state)


def test_a_file_that_lacks_more_than_the_discriminator_is_refused(tmp_path):
    model = build_model("resnet18")
    write_atomically(tmp_path / "half.pth", content_of(model.config, half_precision(model.state_dict()), {}))
    content = torch.load(tmp_path / "half.pth", weights_only=True)
    del content["model"]["attention.merge.weight"]
    torch.save(content, tmp_path / "half.pth")
    with pytest.raises(ValueError, match=r"attention\.merge\.weight"):
        load_checkpoint(tmp_path / "half.pth").build()
