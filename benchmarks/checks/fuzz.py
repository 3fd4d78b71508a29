"""Damage a small data set and a checkpoint at random; every command must end in a result or a one-line error.

python3 -m benchmarks.checks.fuzz [--cases 300] [--seed 0] [--out docs/fuzz.json]
"""

import contextlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from PIL import Image

import eval as evaluation_script
import main as training_script
from benchmarks.harness.command_line import benchmark_parser, write_record
from benchmarks.harness.small_run import EVALUATION_FLAGS, FLAGS, SIZE, data_flags, small_town
from datasets.check.__main__ import main as check_main
from datasets.command_line import OneLineParser, positive
from models import build_model
from utils.runs.checkpoints import save_checkpoint
from utils.system.logs import progress_bar

Damage = Callable[[Path, random.Random], None]


def truncate(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data) + 1)])


def flip_bytes(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 20)):
        if data:
            data[rng.randrange(min(len(data), rng.choice([64, 1024, len(data)])))] = rng.randrange(256)
    path.write_bytes(bytes(data))


def insert_bytes(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    at = rng.randrange(len(data) + 1)
    path.write_bytes(data[:at] + rng.randbytes(rng.randint(1, 100)) + data[at:])


def delete(path: Path, rng: random.Random) -> None:
    path.unlink()


def dangle(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to("gone")


def rename(path: Path, rng: random.Random) -> None:
    names = [
        "x.png",
        "@1@.jpg",
        "@nan@2@.jpg",
        "@1@2@3.JPEG",
        "@-1e400@2@.png",
        "@ 1 @2@.png",
        "@1@2@\n@.png",
        "@1@2@%s@.png",
    ]
    with contextlib.suppress(OSError):
        path.rename(path.with_name(rng.choice(names)))


def redraw(path: Path, rng: random.Random) -> None:
    size = rng.choice([SIZE, (97, 97), (96, 128), (1, 1), (300, 200), (128, 136)])
    mode = rng.choice(["RGB", "RGBA", "L", "P", "1", "I;16", "LA", "CMYK"])
    image = Image.new(mode, size, 0 if len(mode) == 1 or mode == "I;16" else tuple([rng.randrange(256)] * len(mode)))
    with contextlib.suppress(OSError):
        image.save(path, format="TIFF" if mode == "CMYK" else "PNG")


def swap_for_neighbour(path: Path, rng: random.Random) -> None:
    neighbours = [p for p in sorted(path.parent.iterdir()) if p.is_file()] or [path]
    path.write_bytes(rng.choice(neighbours).read_bytes())


def empty_folder(path: Path, rng: random.Random) -> None:
    shutil.rmtree(path.parent)
    if rng.random() < 0.5:
        path.parent.mkdir()


def folder_in_its_place(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def loop(path: Path, rng: random.Random) -> None:
    path.with_name("loop").symlink_to(path.parent.resolve())


DAMAGES: tuple[Damage, ...] = (
    truncate,
    truncate,
    flip_bytes,
    flip_bytes,
    insert_bytes,
    delete,
    dangle,
    rename,
    redraw,
    redraw,
    swap_for_neighbour,
    empty_folder,
    folder_in_its_place,
    loop,
)


class Fuzz:
    """A town and a checkpoint to damage, in `work`; every command runs there."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.town = small_town(work / "town")
        save_checkpoint(work / "good.pth", build_model("resnet18"), {})

    def case(self, seed: int) -> dict:
        """Damage a copy and run one command on it.

        Returns
        -------
        `damages`, `command`, `status`, `error` (the line), and `fault`: what should not have happened, or "".
        """
        rng = random.Random(seed)
        copy, checkpoint = self.work / "copy", self.work / "checkpoint.pth"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.town, copy)
        shutil.copyfile(self.work / "good.pth", checkpoint)
        damages = []
        for _ in range(rng.randint(1, 3)):
            victim = checkpoint if rng.random() < 0.2 else self._victim(copy, rng)
            damage = rng.choice(DAMAGES[:5] if victim == checkpoint else DAMAGES)
            if victim.is_file():
                damage(victim, rng)
                damages.append(f"{damage.__name__} {victim.relative_to(self.work)}")
        name, command = self._command(copy, checkpoint, rng)
        return {"seed": seed, "damages": damages, "command": name, **self._outcome(command)}

    @staticmethod
    def _victim(copy: Path, rng: random.Random) -> Path:
        folder = rng.choice(sorted(p for p in copy.rglob("*") if p.is_dir() and any(f.is_file() for f in p.iterdir())))
        return rng.choice(sorted(p for p in folder.iterdir() if p.is_file()))

    @staticmethod
    def _command(copy: Path, checkpoint: Path, rng: random.Random) -> tuple[str, Callable[[], int]]:
        skip = rng.choice([[], ["--on_bad_image", "skip"]])
        name = rng.choice(["train", "train from the checkpoint", "evaluate", "evaluate", "check"])
        if name == "check":
            return name, lambda: check_main([str(copy), "--workers", "1"])
        flags = data_flags(copy)
        if name == "evaluate":
            roots = flags[2:6] + EVALUATION_FLAGS
            return name, lambda: evaluation_script.main(
                ["--resume", str(checkpoint), *roots, "--num_workers", "0", *skip]
            )
        resume = ["--resume", str(checkpoint)] if "checkpoint" in name else []
        return name, lambda: training_script.main(
            [*flags, *FLAGS, "--n_epochs", "1", "--num_workers", "0", *skip, *resume]
        )

    def _outcome(self, command: Callable[[], int]) -> dict:
        out, err = io.StringIO(), io.StringIO()
        before, fault, status = os.getcwd(), "", None
        os.chdir(self.work)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = command()
        except SystemExit as stop:
            status = stop.code
        except BaseException:
            fault = traceback.format_exc()
        finally:
            os.chdir(before)
            shutil.rmtree(self.work / "runs", ignore_errors=True)
        errors = [line for line in err.getvalue().splitlines() if "error:" in line]
        if not fault and "Traceback" in err.getvalue():
            fault = err.getvalue()[-1500:]
        if not fault and status not in (0, 1, 2):
            fault = f"status {status}"
        if not fault and status == 2 and len(errors) != 1:
            fault = f"{len(errors)} error lines with status 2"
        return {"status": status, "error": errors[0] if errors else "", "fault": fault}


def build_parser() -> OneLineParser:
    parser = benchmark_parser("checks.fuzz", __doc__)
    parser.add_argument("--cases", type=positive, default=300, metavar="N", help="damaged copies")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the first case")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    cases = []
    with tempfile.TemporaryDirectory() as name:
        fuzz = Fuzz(Path(name))
        for seed in progress_bar(range(args.seed, args.seed + args.cases), desc="cases", unit="case"):
            cases.append(fuzz.case(seed))
            if cases[-1]["fault"]:
                print(json.dumps(cases[-1], indent=1))
    faults = sum(bool(case["fault"]) for case in cases)
    outcomes = Counter(f"{case['command']}: status {case['status']}" for case in cases)
    print(f"{args.cases} cases, {faults} faults")
    for outcome, count in sorted(outcomes.items()):
        print(f"  {outcome}: {count}")
    write_record(args.out, {"cases": args.cases, "faults": faults, "outcomes": dict(sorted(outcomes.items()))})
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
