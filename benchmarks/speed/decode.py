"""JPEGs decoded on a device against the CPU's decoder: images per second, and how far the pixels are apart.

python3 -m benchmarks.speed.decode [--device cuda] [--size 1920 1080] [--images 48] [--out decode.json]
"""

import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness.command_line import benchmark_parser, settings_of, write_record
from benchmarks.harness.machine import processor
from benchmarks.harness.timing import alternate
from benchmarks.speed.input_pipeline import write_photo
from benchmarks.speed.processes import table
from datasets.command_line import OneLineParser, positive
from datasets.reading.transforms import decode_images, read_encoded, read_image, why_no_decoder
from utils.system.tables import align


def build_parser() -> OneLineParser:
    parser = benchmark_parser("speed.decode", __doc__, device="cuda")
    parser.add_argument(
        "--size", type=positive, nargs=2, default=[1920, 1080], metavar=("W", "H"), help="of the images"
    )
    parser.add_argument("--images", type=positive, default=48, metavar="N", help="files, decoded in one call")
    parser.add_argument("--repeats", type=positive, default=5, metavar="N", help="rounds")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    device = torch.device(args.device)
    reason = why_no_decoder(device)
    if reason:
        print(f"torchvision cannot decode on {device}: {reason}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        paths = [write_photo(Path(folder, f"{i}.jpg"), tuple(args.size), i) for i in range(args.images)]
        files = [read_encoded(path) for path in paths]

        def on_the_cpu() -> list[Tensor]:
            return [read_image(path) for path in paths]

        def on_the_device() -> list[Tensor]:
            images = decode_images(files, paths, device)
            if device.type == "cuda":
                torch.cuda.synchronize()
            return images

        apart = [(a.int() - b.cpu().int()).abs() for a, b in zip(on_the_cpu(), on_the_device(), strict=True)]
        times = alternate({"one core, from file": on_the_cpu, f"{device}, from memory": on_the_device}, args.repeats)
    difference = {
        "largest": max(int(x.max()) for x in apart),
        "mean": float(torch.stack([x.float().mean() for x in apart]).mean()),
    }
    print(f"{args.images} JPEGs of {args.size[0]}x{args.size[1]}, {processor(args.device)}")
    print("\n".join(align(table(times, "images", args.images))))
    print(f"grey levels apart: {difference['largest']} at most, {difference['mean']:.3f} on average")
    write_record(args.out, {"settings": settings_of(args), "difference": difference, "times": times}, args.device)
    return 0


if __name__ == "__main__":
    sys.exit(main())
