"""Reading and writing checkpoints, ours and released ones."""

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models import NetworkConfig, build_model
from tests.golden_model import released_state
from tests.released_files import to_released, write_released
from utils.runs.checkpoints import load_checkpoint, save_checkpoint
from utils.runs.released import PREFIXES, from_released


@given(
    st.dictionaries(
        st.tuples(st.sampled_from(PREFIXES), st.text("abc.0123456789_", min_size=1)).map(lambda t: t[0][0] + t[1]),
        st.integers(),
    ),
    st.booleans(),
)
def test_any_released_key_round_trips(state, parallel):
    # "cls.conv2d_list." is the longer prefix of DeepLab's branches, so it is not a PSPNet classifier's
    assert to_released(from_released({("module." if parallel else "") + k: v for k, v in state.items()})) == state


def test_an_unknown_key_is_named():
    with pytest.raises(ValueError, match=r"backbone\.conv1"):
        from_released({"backbone.conv1.weight": 0})


@pytest.mark.parametrize("arch, semnet, prefix", [("resnet50", "deeplab", ""), ("resnet101", "pspnet", "module.")])
def test_a_released_file_is_told_by_content(tmp_path, arch, semnet, prefix):
    checkpoint = load_checkpoint(write_released(tmp_path / "released.pth", arch, semnet, prefix))
    assert checkpoint.released and checkpoint.training == {}
    given = {"arch": arch, "semnet": semnet, "num_classes": 17, "scale_indexes": [3, 4]}
    assert checkpoint.config == NetworkConfig(**given)
    expected = released_state(arch, semnet)
    assert all(torch.equal(expected[key], value) for key, value in to_released(checkpoint.build().state_dict()).items())


def test_ours_round_trips_with_its_configuration(tmp_path):
    model = build_model("resnet18", "pspnet", num_classes=5, scale_indexes=(2, 4))
    save_checkpoint(tmp_path / "ours.pth", model, {"epoch": 3})
    checkpoint = load_checkpoint(tmp_path / "ours.pth")
    assert not checkpoint.released and checkpoint.training == {"epoch": 3} and checkpoint.config == model.config
    rebuilt = checkpoint.build().state_dict()
    assert all(torch.equal(value, rebuilt[key]) for key, value in model.state_dict().items())
    assert [file.name for file in tmp_path.iterdir()] == ["ours.pth"]


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: f"_orig_mod.module.{name}",
        lambda name: name.replace(".", "._orig_mod.", 1),  # parts compiled one by one
    ],
)
def test_names_of_a_wrapped_network_are_read(tmp_path, wrapped):
    save_checkpoint(tmp_path / "ours.pth", build_model("resnet18", num_classes=3), {"epoch": 3})
    content = torch.load(tmp_path / "ours.pth")
    expected = content["model"]
    torch.save(content | {"model": {wrapped(key): value for key, value in expected.items()}}, tmp_path / "wrapped.pth")
    checkpoint = load_checkpoint(tmp_path / "wrapped.pth")
    assert checkpoint.state_dict.keys() == expected.keys() and checkpoint.training == {"epoch": 3}
    rebuilt = checkpoint.build().state_dict()
    assert all(torch.equal(value, rebuilt[key]) for key, value in expected.items())


@pytest.mark.parametrize("prefix", ["_orig_mod.", "_orig_mod.module.", "module._orig_mod."])
def test_names_of_a_wrapped_released_network_are_read(prefix):
    assert from_released({f"{prefix}vpr_pooling.p": 3}) == {"pooling.p": 3}


def test_an_entry_that_stands_twice_is_named(tmp_path):
    model = {"module.pooling.p": torch.ones(1), "pooling.p": torch.ones(1)}
    torch.save({**GOOD, "model": model, "training": {}}, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=r"odd\.pth: not a SegVPR checkpoint \(it holds 'pooling\.p' twice"):
        load_checkpoint(tmp_path / "odd.pth")


def test_another_architecture_is_named(tmp_path):
    save_checkpoint(tmp_path / "ours.pth", build_model("resnet18"), {})
    with pytest.raises(ValueError, match=r"ours\.pth: does not fit resnet18 with deeplab and 5 classes"):
        load_checkpoint(tmp_path / "ours.pth").load_into(build_model("resnet18", num_classes=5))


class Bomb:
    def __reduce__(self):
        return exec, ("import builtins; builtins.bomb_went_off = True",)


@pytest.mark.parametrize(
    "write",
    [lambda path: torch.save({"state_dict": Bomb()}, path), lambda path: path.write_bytes(pickle.dumps(Bomb()))],
)
def test_a_pickle_that_would_run_code_is_refused(tmp_path, write):
    import builtins

    write(tmp_path / "bomb.pth")
    with pytest.raises(ValueError, match=r"bomb\.pth: not a checkpoint that can be read safely"):
        load_checkpoint(tmp_path / "bomb.pth")
    assert not hasattr(builtins, "bomb_went_off")


GOOD = {
    "format": "segvpr-1",
    "config": {"arch": "resnet18", "semnet": "deeplab", "num_classes": 3, "scale_indexes": [3]},
}


@pytest.mark.parametrize(
    "content",
    [
        {**GOOD, "config": {}, "model": {}, "training": {}},
        {**GOOD, "config": None, "model": {}, "training": {}},
        {**GOOD, "config": {**GOOD["config"], "num_classes": "x"}, "model": {}, "training": {}},
        {**GOOD, "model": {"encoder.conv1.weight": 3}, "training": {}},
        {**GOOD, "model": {}, "training": {"run": {}}},
        {"state_dict": {3: torch.zeros(1)}},
        {"state_dict": {"sem_branch.cls.conv2d_list.0.weight": torch.zeros(())}},
    ],
)
def test_a_crafted_checkpoint_is_named(tmp_path, content):
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=r"odd\.pth: not a SegVPR checkpoint"):
        load_checkpoint(tmp_path / "odd.pth")


@pytest.mark.parametrize("content", [b"", b"hello", None, [1, 2], {"a": 1}, {"state_dict": {}}, {"format": "other"}])
def test_what_is_no_checkpoint_is_named(tmp_path, content):
    file = tmp_path / "odd.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises((ValueError, FileNotFoundError), match=r"odd\.pth"):
        load_checkpoint(file)
