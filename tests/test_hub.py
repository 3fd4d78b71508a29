"""torch.hub, from programs that have modules named as ours are."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models import NetworkConfig, build_model
from tests.released_files import write_released
from utils.runs.checkpoints import load_checkpoint, save_checkpoint

REPOSITORY = Path(__file__).resolve().parents[1]

PROGRAM = """
import sys
import utils, datasets.theirs
import copy, pickle
import torch

model = torch.hub.load(sys.argv[1], "segvpr", source="local", weights=sys.argv[2])
import models  # the others before, this one after: theirs all three
assert utils.NAME == "their utils" and models.NAME == "their models" and datasets.theirs.NAME == "their datasets"
for name in ("utils", "models", "datasets", "datasets.theirs"):
    assert not sys.modules[name].__file__.startswith(sys.argv[1]), name
assert not {name for name in sys.modules if name.startswith(("models.", "utils.", "datasets.")) and "theirs" not in name}
assert sys.argv[1] not in sys.path and not model.training

raw = torch.randint(0, 256, (2, 3, 112, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
images = torch.hub.load(sys.argv[1], "network_input", raw, model, source="local")
with torch.inference_mode():
    embedded = model.embed(images)
    torch.testing.assert_close(model.describe(raw), embedded)
    assert model.segment(images).shape == (2, 17, 112, 128) and model.attend(images).shape[:2] == (2, 1)
    assert torch.equal(copy.deepcopy(model).embed(images), embedded)
    assert torch.equal(pickle.loads(pickle.dumps(model)).embed(images), embedded)
    twin = torch.hub.load(sys.argv[1], "segvpr", source="local", arch="resnet18", semnet="deeplab")
    assert type(twin) is type(model) and not torch.equal(twin.embed(images), embedded)
    twin.load_state_dict(pickle.loads(pickle.dumps(model.state_dict())))
    assert torch.equal(twin.embed(images), embedded)
torch.save(embedded, sys.argv[3])
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(0)  # a map that is 0 nowhere: where it is, all descriptors are alike
    path = tmp_path_factory.mktemp("hub") / "best.pth"
    save_checkpoint(path, build_model("resnet18"), {})
    return path


def load(**options):
    return torch.hub.load(str(REPOSITORY), "segvpr", source="local", **options)


def test_a_program_with_modules_of_the_same_names(checkpoint, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "utils.py").write_text("NAME = 'their utils'")
    (tmp_path / "models.py").write_text("NAME = 'their models'")
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/__init__.py").touch()
    (tmp_path / "datasets/theirs.py").write_text("NAME = 'their datasets'")
    command = [sys.executable, "program.py", str(REPOSITORY), str(checkpoint), str(tmp_path / "out.pt")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    raw = torch.randint(0, 256, (2, 3, 112, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = load_checkpoint(checkpoint).build().describe(raw)
    torch.testing.assert_close(torch.load(tmp_path / "out.pt"), expected)


def test_beside_our_own_packages(checkpoint):
    before = {name: sys.modules[name] for name in ("models", "models.segvpr", "utils", "datasets")}
    model = load(weights=str(checkpoint), arch="resnet18", semnet="deeplab", scale_indexes=(3, 4))
    assert {name: sys.modules[name] for name in before} == before
    assert type(model) is not type(build_model("resnet18")) and model.config.arch == "resnet18"
    state = load_checkpoint(checkpoint).state_dict
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "asked, reason",
    [
        ({"arch": "resnet50"}, "arch 'resnet50': .*best.pth has arch 'resnet18'"),
        ({"semnet": "pspnet"}, "semnet 'pspnet': .* leave semnet out"),
        ({"num_classes": 5}, "num_classes 5: .* num_classes 17"),
        ({"scale_indexes": [4]}, r"scale_indexes \[4\]"),
    ],
)
def test_arguments_that_contradict_the_checkpoint(checkpoint, asked, reason):
    with pytest.raises(ValueError, match=reason):
        load(weights=checkpoint, **asked)


def test_a_released_checkpoint_says_all_but_the_pooled_stages(tmp_path):
    released = write_released(tmp_path / "released.pth", "resnet50", "pspnet", "module.")
    model = load(weights=released, scale_indexes=[2, 3, 4])
    given = {"arch": "resnet50", "semnet": "pspnet", "num_classes": 17, "scale_indexes": [2, 3, 4]}
    assert model.config.to_plain() == NetworkConfig(**given).to_plain()
    with pytest.raises(ValueError, match="semnet 'deeplab'"):
        load(weights=released, semnet="deeplab")


def test_random_weights_and_errors(tmp_path):
    model = load(arch="resnet18", semnet="pspnet", num_classes=5)
    assert not model.training and model.config.num_classes == 5
    with pytest.raises(ValueError, match="resnet34"):
        load(arch="resnet34")
    with pytest.raises(FileNotFoundError, match=r"absent\.pth"):
        load(weights=tmp_path / "absent.pth")


@pytest.mark.parametrize("precision, within", [("fp32", 1e-5), ("bf16", 0.02)])
def test_a_network_for_descriptors_alone(checkpoint, precision, within):
    model, fast = load(weights=checkpoint), load(weights=checkpoint, precision=precision)
    raw = torch.randint(0, 256, (2, 3, 112, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected, found = model.describe(raw), fast.describe(raw)
    assert found.dtype == torch.float32 and (found - expected).norm() < within * expected.norm()
    assert not fast.training and not hasattr(fast, "head")
    with pytest.raises(ValueError, match="'int4' is not one of auto, fp32, bf16"):
        load(weights=checkpoint, precision="int4")


def test_network_input_knows_no_default_space():
    model = load(arch="resnet18", semnet="pspnet")
    model.config, raw = replace(model.config, input="imagenet"), torch.zeros((1, 3, 100, 100), dtype=torch.uint8)

    def network_input(*space):
        return torch.hub.load(str(REPOSITORY), "network_input", raw, *space, source="local")

    assert torch.equal(network_input(model), model.prepare(raw))
    assert torch.equal(network_input("imagenet"), model.prepare(raw))
    assert network_input("released")[0, :, 0, 0].tolist() == pytest.approx([-0.485, -0.456, -0.406])
    with pytest.raises(ValueError, match=r"network_input\(images, model\)"):
        network_input()
    with pytest.raises(ValueError, match="not one of released, imagenet"):
        network_input("other")


def test_imports_inside_functions_find_ours_long_after(tmp_path, monkeypatch):
    (tmp_path / "hubconf.py").write_text((REPOSITORY / "hubconf.py").read_text())
    for package in ("models", "utils"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "models/__init__.py").write_text(
        "import torch\n"
        "class Late(torch.nn.Module):\n"
        "    def name(self):\n"
        "        import utils.late\n"
        "        from models import other\n"
        "        from .other import NAME\n"
        "        return utils.late.NAME, other.NAME, NAME\n"
        "def build_model():\n"
        "    return Late()\n"
    )
    (tmp_path / "models/other.py").write_text("NAME = 'other'")
    (tmp_path / "utils/late.py").write_text("from models.other import NAME as OTHER\nNAME = 'late and ' + OTHER")
    model = torch.hub.load(str(tmp_path), "segvpr", source="local")
    assert model.name() == ("late and other", "other", "other")
    assert "utils.late" not in sys.modules and "models.other" not in sys.modules


def test_the_hub_lists_its_entries_alone():
    namespace: dict = {"__file__": str(REPOSITORY / "hubconf.py")}
    exec((REPOSITORY / "hubconf.py").read_text(), namespace)
    listed = {name for name, value in namespace.items() if callable(value) and not name.startswith("_")}
    assert listed == {"segvpr", "localizer", "network_input"}
