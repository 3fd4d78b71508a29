"""What each of two processes does for `test_distributed.py`: it writes what it found to a file of its own.

`python -m tests.distributed_worker together OUT ROOT RUN` or `... interrupted FLAGS`.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

import eval as evaluation_script
import main
from models import build_model
from tests.golden_model import labels, pictures
from tests.gradients import backward_losses
from tests.tiny import SMALL_RUN, data_flags
from utils.evaluation.segmentation import evaluate_segmentation
from utils.retrieval.embedding import EmbeddingOptions, embed_images
from utils.runs.checkpoints import load_checkpoint
from utils.system import distributed
from utils.system.failures import RunFailed
from utils.training import loop as training_loop
from utils.training.loss_watch import LossWatch
from utils.training.optimizers import build_optimizers
from utils.training.settings import LossSettings
from utils.training.step import train_step

CPU = torch.device("cpu")
METHODS = {
    "grl": LossSettings(margin=1e-8),
    "alternating": LossSettings(margin=1e-8, adv_weight=0.3, da_method="alternating"),
}
OPTIONS = EmbeddingOptions(batch_size=2, num_workers=0)
BAD = "@620900.000@5735000.000@bad@.png"
INDEXED, TWICE = ["--store", "store", "--index", "IVF2,Flat", "--pca_dim", "4"], ("indexed", "indexed again")


def whole_batch() -> dict:
    """Two triplets. The first has few labelled pixels and no active negative: its positive is its query."""
    source = pictures("distributed/source", 6, 97, 104, torch.float64)
    source[2] = source[0]
    source[3], source[5] = source[5].clone(), source[1] + 0.01
    truth = labels("distributed/labels", 6, 104, 104)[:, :97]
    truth[[0, 2, 4], 5:] = 255
    return {
        "images": source,
        "labels": truth,
        "target_images": pictures("distributed/target", 6, 97, 104, torch.float64),
    }


def batch_of(rank: int) -> dict:
    """One process's part of it: a triplet, and half of the target images."""
    whole, rows = whole_batch(), [rank, rank + 2, rank + 4]
    return {
        "images": whole["images"][rows],
        "labels": whole["labels"][rows],
        "target_images": whole["target_images"][3 * rank : 3 * rank + 3],
    }


def small_model() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model("resnet18").double()


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def averaged_gradients(settings: LossSettings) -> dict:
    model = small_model().eval()
    losses = backward_losses(model, **batch_of(distributed.rank()), num_queries=1, settings=settings)
    own = {name: loss.clone() for name, loss in losses.items()}
    distributed.average_tensors([*(p.grad for p in model.parameters() if p.grad is not None), *losses.values()])
    return {"gradients": gradients(model), "losses": losses, "own losses": own}


def steps_with_a_bad_one() -> dict:
    """Three steps, the last with a NaN on the last process alone; and what each process says of them."""
    model, watch = small_model().train(), LossWatch()
    optimizers = build_optimizers(model)
    states = []
    for step in range(3):
        batch = batch_of(distributed.rank())
        if step == 2 and distributed.rank() == 1:
            batch["images"] = batch["images"] * torch.nan
        losses = train_step(model, optimizers, **batch, num_queries=1)
        watch.note((0, 0, step), ["some.png"], {**losses, "gradient": optimizers.gradient_norm()})
        states.append({name: value.clone() for name, value in model.state_dict().items()})
    try:
        said = str(watch.read())
    except RunFailed as error:
        said = str(error)
    return {"states": states, "said": said}


def together(out: Path, root: Path, run: Path) -> None:
    """All that two healthy processes do."""
    found: dict = {method: averaged_gradients(settings) for method, settings in METHODS.items()}
    found["steps"] = steps_with_a_bad_one()
    model = load_checkpoint(run / "best.pth").build()
    found["descriptors"] = torch.from_numpy(embed_images(model, image_list(root), options=OPTIONS))
    found["confusion"] = torch.from_numpy(evaluate_segmentation(model, labelled_list(root), OPTIONS).matrix)
    found["threads"] = torch.get_num_threads()

    kept = main.measure

    def noted(model, *arguments, **keywords):
        found["trained"] = {name: value.clone() for name, value in model.state_dict().items()}
        return kept(model, *arguments, **keywords)

    main.measure = noted
    longer = ["--exp_name", "longer", "--resume", str(run), "--n_epochs", "3", "--num_workers", "1"]
    statuses = [
        main.main([*data_flags(root), *SMALL_RUN, *longer]),
        evaluation_script.main([*evaluation_flags(root, run), "--output_dir", "evaluated", "--save_descriptors"]),
        *(evaluation_script.main([*evaluation_flags(root, run), *INDEXED, "--output_dir", name]) for name in TWICE),
    ]
    torch.save({**found, "statuses": statuses}, out / f"rank{distributed.rank()}.pt")


def evaluate_a_bad_image(out: Path, root: Path, run: Path) -> int:
    """Fail in the second process, whose share the image is in."""
    if distributed.is_first():
        shutil.copytree(root / "robotcar", out / "bad")
        (max((out / "bad/night").iterdir())).rename(out / "bad/night" / BAD)
        (out / "bad/night" / BAD).write_bytes(b"no image")
    distributed.from_first(lambda: None)  # waits until it is there
    flags = ["--dataset_root_test", str(out / "bad"), "--output_dir", "failed"]
    return evaluation_script.main([*evaluation_flags(root, run), *flags])


def image_list(root: Path) -> list[str]:
    """An odd number of images, so that shares differ."""
    return sorted(map(str, (root / "robotcar").rglob("*.png")))[:7]


def labelled_list(root: Path) -> list[str]:
    return sorted(map(str, (root / "idda/town3/gallery").rglob("*.png")))[:5]


def evaluation_flags(root: Path, run: Path) -> list[str]:
    roots = ["--dataset_root_val", str(root / "idda"), "--dataset_root_test", str(root / "robotcar")]
    machine = "--eval_scale 1 --num_workers 0 --device cpu --no_report --cache_batch_size 4".split()
    return ["--resume", str(run / "best.pth"), *roots, "--test_g", "overcast", "--test_q", "night", *machine]


def interrupted(flags: list[str]) -> int:
    """Train, and have torchrun stopped in the third step."""
    step, calls = training_loop.train_step, []

    def stopped(*arguments, **keywords):
        calls.append(1)
        if len(calls) == 3:
            if distributed.is_first():
                os.kill(os.getppid(), signal.SIGTERM)
            time.sleep(2)  # until torchrun has passed it on to all
        return step(*arguments, **keywords)

    training_loop.train_step = stopped
    return main.main(flags)


if __name__ == "__main__":
    if sys.argv[1] == "interrupted":
        sys.exit(interrupted(sys.argv[2:]))
    with distributed.started(CPU):
        together(*map(Path, sys.argv[2:]))
        sys.exit(evaluate_a_bad_image(*map(Path, sys.argv[2:])))
