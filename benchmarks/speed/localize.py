"""Time from a photo to its place: a cold start, the class Localizer, standard input, HTTP, and adding images to a store.

    python3 -m benchmarks.speed.localize [--images 150] [--photos 50] [--stored 10000] [--out docs/localize.json]

The gallery is noise, 480x270 JPEGs, and the network, a ResNet-18, has random weights: neither changes the time. A cold start is
`eval.py --localize PHOTO` as a process of its own, with the gallery's descriptors stored. Only the store is measured with many
images: their files are empty, and random numbers stand for their descriptors. Times are wall clock; CPU seconds, of all threads,
stand beside them where one process does the work, since other work on the machine does not lengthen these.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

from benchmarks.harness.command_line import benchmark_parser, settings_of, write_record
from datasets.command_line import OneLineParser, positive, run_tool
from models import SegVPR, build_model
from utils.retrieval import Localizer, store
from utils.retrieval.embedding import EmbeddingOptions
from utils.runs.checkpoints import save_checkpoint
from utils.system.tables import align

SIZE = (480, 270)
EVAL = Path(__file__).parents[2] / "eval.py"


def write_images(folder: Path, count: int, seed: int) -> list[str]:
    """Pictures of noise 5 m apart, as JPEG."""
    folder.mkdir()
    rng, paths = np.random.default_rng(seed), []
    for number in range(count):
        coarse = rng.integers(0, 256, (9, 16, 3), np.uint8)
        path = folder / f"@{277000 + 5 * number}@110000@{number}@.jpg"
        Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC).save(path, quality=90)
        paths.append(str(path))
    return paths


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """The median and the 99th of a hundred, in milliseconds."""
    return {f"p{p}_ms": 1000 * float(np.percentile(seconds, p)) for p in (50, 99)}


def command(work: Path, *flags: str) -> list[str]:
    paths = [str(EVAL), "--resume", str(work / "best.pth"), "--gallery", str(work / "gallery"), *flags]
    return [sys.executable, *paths, "--store", str(work / "store"), "--device", "cpu"]


def cold_start(work: Path, photo: str) -> dict[str, float]:
    """Seconds until a process of its own has answered, the second time: the first fills the store."""
    for _ in range(2):
        began, began_cpu = time.perf_counter(), _cpu_of_children()
        subprocess.run(command(work, "--localize", photo, "--json"), check=True, capture_output=True)
    return {"seconds": time.perf_counter() - began, "cpu_seconds": _cpu_of_children() - began_cpu}


def _cpu_of_children() -> float:
    times = os.times()
    return times.children_user + times.children_system


def through_the_class(work: Path, photos: Sequence[str]) -> dict[str, float]:
    """Per photo, by path, from a gallery that is open."""
    localizer = Localizer(work / "best.pth", work / "gallery", store=work / "store")
    localizer.locate(photos[0])
    wall, cpu = [], []
    for photo in photos:
        began, began_cpu = time.perf_counter(), time.process_time()
        localizer.locate(photo)
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - began_cpu)
    return percentiles(wall) | {"p50_cpu_ms": percentiles(cpu)["p50_ms"]}


def through_standard_input(work: Path, photos: Sequence[str]) -> dict[str, float]:
    """Per line, from writing the path to reading the answer."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    seconds = []
    with subprocess.Popen(command(work, "--localize", "-"), **pipes) as process:
        for photo in [photos[0], *photos]:
            began = time.perf_counter()
            process.stdin.write(f"{photo}\n")
            process.stdin.flush()
            if '"matches"' not in process.stdout.readline():
                raise ValueError(f"{photo}: was not answered")
            seconds.append(time.perf_counter() - began)
        process.stdin.close()
    return percentiles(seconds[1:])


def over_http(work: Path, photos: Sequence[str]) -> dict[str, float]:
    """Per photo, from sending it to `utils.serve` on this machine to reading the answer."""
    absent = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if absent:
        print(f"HTTP: left out, needs {' and '.join(absent)}: pip install starlette uvicorn", file=sys.stderr)
        return {}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = ["--gallery", str(work / "gallery"), "--resume", str(work / "best.pth"), "--port", str(port)]
    seconds = []
    with subprocess.Popen(
        [sys.executable, "-m", "utils.serve", *flags], cwd=EVAL.parent, stdout=subprocess.DEVNULL
    ) as server:
        try:
            connection = HTTPConnection("127.0.0.1", port, timeout=300)
            while connection.sock is None:  # it listens before the gallery is open, and answers after that
                if server.poll() is not None:
                    raise ValueError("utils.serve: ended before it answered")
                with suppress(ConnectionRefusedError):
                    connection.connect()
                time.sleep(0.1)
            for photo in [photos[0], *photos]:
                began = time.perf_counter()
                connection.request("POST", "/localize", Path(photo).read_bytes())
                answer = connection.getresponse()
                if b'"matches"' not in answer.read():
                    raise ValueError(f"{photo}: was answered with status {answer.status}")
                seconds.append(time.perf_counter() - began)
        finally:
            server.terminate()
    return percentiles(seconds[1:])


def adding(work: Path, model: SegVPR, count: int, more: int = 100) -> dict[str, float]:
    """Seconds to store many images, then to add some, and to open all; embedding takes no time."""
    files = [work / "many" / f"{number}.jpg" for number in range(count + more)]
    files[0].parent.mkdir()
    for file in files:
        file.touch()
    rng, embedded = np.random.default_rng(0), []

    def numbers(model: SegVPR, paths: Sequence[str], *_) -> np.ndarray:
        embedded.append(len(paths))
        return rng.random((len(paths), model.descriptor_dim), np.float32)

    kept = store.DescriptorStore(model, "benchmark", 1.0, EmbeddingOptions(), work / "store")
    paths, seconds = [str(file) for file in files], {}
    with patch.object(store, "embed_images", numbers), patch.object(store, "bounded_batches", lambda *_: None):
        for name, part in (("store", paths[:count]), ("add", paths), ("open", paths)):
            embedded.clear()
            began = time.perf_counter()
            np.asarray(kept.descriptors(part))
            seconds[f"{name}_s"] = time.perf_counter() - began
            seconds[f"{name}_embedded"] = sum(embedded)
    return seconds


def measure(images: int, photos: int, stored: int) -> dict[str, dict]:
    """All of it, below a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_images(work / "gallery", images, 0)
        asked = write_images(work / "photos", photos, 1)
        torch.manual_seed(0)
        model = build_model("resnet18").eval()
        model.image_size = max(SIZE)
        save_checkpoint(work / "best.pth", model, {})
        return {
            "cold start": cold_start(work, asked[0]),
            "class": through_the_class(work, asked),
            "standard input": through_standard_input(work, asked),
            "HTTP": over_http(work, asked),
            "store": adding(work, model, stored),
        }


def build_parser() -> OneLineParser:
    parser = benchmark_parser("speed.localize", __doc__)
    parser.add_argument("--images", type=positive, default=150, help="images of the gallery")
    parser.add_argument("--photos", type=positive, default=50, help="photos that are looked up")
    parser.add_argument("--stored", type=positive, default=10_000, help="images in the store before 100 are added")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)

    def run() -> None:
        found = measure(args.images, args.photos, args.stored)
        rows = [[name, figure, f"{value:.4g}"] for name, figures in found.items() for figure, value in figures.items()]
        print("\n".join(align([["what", "figure", "value"], *rows])))
        write_record(args.out, settings_of(args) | {"threads": torch.get_num_threads()} | found)

    return run_tool("benchmarks.speed.localize", run)


if __name__ == "__main__":
    sys.exit(main())
