"""SegVPR for `torch.hub.load(<this folder>, "segvpr", source="local", weights="best.pth")`.

Our packages are loaded under a private name, so that they and modules of yours that are named `models`, `utils` or
`datasets` never meet, at whatever time either is imported.
"""

# whole modules, not names from them: torch.hub.list shows every function and class that it finds here
import builtins
import dataclasses
import hashlib
import importlib.machinery
import pathlib
import sys
import types

import torch

dependencies = ["torch", "torchvision", "numpy"]

_ROOT = pathlib.Path(__file__).resolve().parent
_PACKAGES = ("models", "utils", "datasets")
_PRIVATE = "_segvpr_" + hashlib.sha256(str(_ROOT).encode()).hexdigest()[:8]


def segvpr(
    arch: str | None = None,
    semnet: str | None = None,
    weights: str | pathlib.Path | None = None,
    num_classes: int | None = None,
    scale_indexes: list[int] | None = None,
    precision: str | None = None,
) -> torch.nn.Module:
    """SegVPR on the CPU, in eval mode: `describe(images)` gives the descriptors of RGB uint8 images (B, 3, H, W).

    `embed` (descriptors), `attend` (attention) and `segment` (class logits) take what `prepare(images)` makes of such
    images: the network's own input space. Both sides are at least 97 px.

    Parameters
    ----------
    arch : `resnet18`, `resnet50` (default) or `resnet101`.
    semnet : `deeplab` (default), `pspnet` or `fcn`.
    weights : a checkpoint of this project or a released one, which has all the other values; or a network that
        ships: `photos` for real streets, `town` for drawn ones; None: random weights.
    num_classes : 17 by default.
    scale_indexes : pooled stages, 3 and 4 by default; the only value that a released checkpoint does not have.
    precision : None for the whole network in float32; `fp32`, `bf16` or `auto` (bf16 where it is faster) for one that only
        describes, embeds and attends, as fast as this CPU allows, without gradients.

    Raises
    ------
    ValueError, OSError : not a checkpoint, or one of another network than the arguments name.
    """
    model = _network(arch, semnet, weights, num_classes, scale_indexes)
    if precision is None:
        return model
    compute = _load("utils.system.compute")
    return compute.compute_on(compute.CPU, precision).embedder(model)


def _network(arch, semnet, weights, num_classes, scale_indexes) -> torch.nn.Module:
    """The whole network; arguments as of `segvpr`."""
    asked = {"arch": arch, "semnet": semnet, "num_classes": num_classes, "scale_indexes": scale_indexes}
    given = {name: value for name, value in asked.items() if value is not None}
    if weights is None:
        return _load("models").build_model(**given).eval()
    checkpoints = _load("utils.runs.checkpoints")
    checkpoint = checkpoints.load_checkpoint(checkpoints.find_weights(weights))
    config = dataclasses.replace(checkpoint.config, **given)
    for name, value in given.items():
        recorded = getattr(checkpoint.config, name)
        if getattr(config, name) != recorded and not (checkpoint.released and name == "scale_indexes"):
            raise ValueError(f"{name} {value!r}: {weights} has {name} {recorded!r}; leave {name} out")
    return dataclasses.replace(checkpoint, config=config).build()


def localizer(checkpoint: str | pathlib.Path, gallery: str | pathlib.Path, *arguments, **options):
    """A gallery that says where photos were taken: `locate(photo)`, see `utils.retrieval.Localizer` for all arguments.

    Parameters
    ----------
    checkpoint : a file, or the name of a network that ships, `photos` or `town`.
    gallery : a folder of images with positions, or a CSV file that lists them.
    """
    return _load("utils.retrieval").Localizer(checkpoint, gallery, *arguments, **options)


def network_input(images: torch.Tensor, space: str | torch.nn.Module | None = None) -> torch.Tensor:
    """RGB uint8 (B, 3, H, W) -> what a network reads, float32; `model.prepare(images)` is the same for a model at hand.

    Parameters
    ----------
    space : a network that `segvpr` gave, or the name of an input space.

    Raises
    ------
    ValueError : no space, one that is not offered, or images of another type or shape.
    """
    if space is None:
        raise ValueError(
            "network_input: networks differ in what they read; give the network, network_input(images, model), or call "
            "model.prepare(images)"
        )
    inputs = _load("models.input")
    inputs.check_images(images)
    return inputs.to_network_input(images, space=space.config.input if isinstance(space, torch.nn.Module) else space)


def _load(name: str) -> types.ModuleType:
    """Import one of our modules under the private name; later calls give the same one."""
    if _PRIVATE not in sys.modules:
        package = types.ModuleType(_PRIVATE, f"SegVPR, loaded from {_ROOT} by torch.hub.")
        package.__path__ = [str(_ROOT)]
        sys.meta_path.insert(0, _Finder())
        sys.modules[_PRIVATE] = package
    return importlib.import_module(f"{_PRIVATE}.{name}")


def _private_import(name, globals=None, locals=None, fromlist=(), level=0):
    """`import` as our modules see it: our packages' names lead below the private one."""
    root = name.partition(".")[0]
    if level or root not in _PACKAGES:
        return builtins.__import__(name, globals, locals, fromlist, level)
    module = builtins.__import__(f"{_PRIVATE}.{name}", globals, locals, fromlist, 0)
    return module if fromlist else sys.modules[f"{_PRIVATE}.{root}"]


class _Loader(importlib.machinery.SourceFileLoader):
    """Runs a module of ours with an `import` of its own, which also holds for imports inside functions, long after."""

    def exec_module(self, module: types.ModuleType) -> None:
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _private_import}
        super().exec_module(module)


class _Finder:
    """Finds what is below the private name."""

    @staticmethod
    def find_spec(
        name: str, path: list[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not name.startswith(f"{_PRIVATE}."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec
