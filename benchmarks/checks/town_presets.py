"""Measure the town's presets of difficulty, and draw the pictures of docs/town.md.

    python3 -m benchmarks.checks.town_presets [--places 24] [--size 224 126] [--out town_presets.json] [--pictures DIR]

For each preset: the share of facades that have a type of their own, pixels of moving things, displacement of the queries' cameras,
and how far the overcast pictures of the "real" camera differ from the synthetic camera's.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from benchmarks.harness.command_line import benchmark_parser, write_record
from datasets.command_line import OneLineParser, positive
from datasets.town.drawing.facades import font
from datasets.town.passes import VERSION, Settings, chunks
from datasets.town.pictures import frames, make_atlas, render, street_of
from datasets.town.world.difficulty import PRESETS, Knobs
from datasets.town.world.mesh import BICYCLE, MOTORCYCLE, PERSON, RIDER, TRUCK, VEHICLE

MOVING = (PERSON, RIDER, VEHICLE, TRUCK, BICYCLE, MOTORCYCLE)
PLAN_ONLY = (97, 97)
"""Size of pictures for measurements that draw none."""


def drawn(settings: Settings, wanted):
    """Yield (pass name, camera, place, RGB uint8 [H, W, 3], raw ids uint8 [H, W]) of the frames that `wanted(town, pass,
    camera, place)` accepts."""
    atlas = make_atlas(settings)
    for chunk in chunks(settings):
        for frame in frames(settings, chunk):
            run, camera, place = frame.run, frame.camera, frame.place
            if wanted(run.town, run.name, camera, place):
                image, label, _ = render(settings, chunk, frame, atlas)
                yield run.name, camera, place, np.asarray(image), label


def own_types(settings: Settings) -> float:
    """Share of facades whose type is new on its side of the street; a type is all but width, shade, door and sign."""
    first = total = 0
    for chunk in chunks(settings):
        if chunk.first:
            continue
        street = street_of(settings, chunk)
        for side in (1, -1):
            types = []
            for house in street.things:
                faces = [f[3][0][1] for f in house.faces if isinstance(f[3][0], tuple) and f[3][0][0] == "facade"]
                fronts = [f for f in faces if not f.plain]
                if fronts and house.off == street.front and (house.y - street.centre(house.x)) * side > 0:
                    f = fronts[0]
                    types.append((f.floors, f.floor, f.material, f.trim, f.window, f.window_width, f.window_height))
            first, total = first + len(set(types)), total + len(types)
    return first / total


def moving_share(settings: Settings) -> float:
    """Share of pixels of vehicles, bicycles and people in the labelled rain queries of both towns."""
    pictures = drawn(settings, lambda town, run, camera, place: town != "robotcar" and run == "rain")
    return float(np.mean([np.isin(label, MOVING).mean() for *_, label in pictures]))


def displacements(settings: Settings) -> dict[str, float]:
    """Mean distance (m), turn (degrees) and height difference (m) between a query's camera and its gallery image's."""
    found = []
    for chunk in chunks(settings):
        stands = {(frame.run.name, frame.place): frame.stand for frame in frames(settings, chunk)}
        still = "overcast" if chunk.town == "robotcar" else "gallery"
        for (name, place), stand in stands.items():
            base = stands[still, place]
            if name != still:
                moved = np.hypot(stand.x - base.x, stand.off - base.off)
                found.append((moved, np.degrees(abs(stand.heading)), abs(stand.height)))
    distance, turn, height = np.mean(found, axis=0)
    return {"distance_m": float(distance), "turn_degrees": float(turn), "height_m": float(height)}


def statistics(photo: np.ndarray) -> np.ndarray:
    """Mean saturation, brightness of the lower corners relative to the middle, and mean absolute difference of grey neighbours
    (0..1), which grain and edges raise and blur lowers."""
    values = photo.astype(np.float64) / 255.0
    grey, (h, w) = values.mean(2), photo.shape[:2]
    saturation = ((values.max(2) - values.min(2)) / np.maximum(values.max(2), 0.02)).mean()
    corners = np.concatenate([grey[-h // 5 :, : w // 5].ravel(), grey[-h // 5 :, -w // 5 :].ravel()]).mean()
    middle = grey[-h // 5 :, 2 * w // 5 : 3 * w // 5].mean()
    return np.array((saturation, corners / middle, np.abs(np.diff(grey, axis=1)).mean()))


def camera_gap(settings: Settings, places: int = 8) -> tuple[np.ndarray, float]:
    """The "real" camera's overcast pictures against the synthetic camera's of the same places: change of the mean `statistics`,
    and mean absolute difference in grey levels."""
    pictures = []
    for knobs in (settings.knobs, replace(settings.knobs, domain_gap=0.0)):
        changed = replace(settings, knobs=knobs)
        wanted = drawn(changed, lambda town, run, _, place: run == "overcast" and place < places)
        pictures.append(np.stack([photo for *_, photo, _ in wanted]))
    real, synthetic = (np.mean([statistics(photo) for photo in photos], axis=0) for photos in pictures)
    return real - synthetic, float(np.abs(pictures[0].astype(float) - pictures[1]).mean())


def measure(settings: Settings) -> dict[str, float]:
    """All figures of one preset."""
    (saturation, corners, edges), difference = camera_gap(settings)
    return {
        "facades_of_their_own_type": own_types(settings),
        "moving_pixels": moving_share(settings),
        **displacements(settings),
        "camera_difference_grey_levels": difference,
        "camera_saturation": float(saturation),
        "camera_corners": float(corners),
        "camera_edges_and_grain": float(edges),
    }


def _sheet(rows: list[tuple[str, list[np.ndarray]]], columns: list[str], target: Path) -> None:
    high, wide = rows[0][1][0].shape[:2]
    left, top, gap = 92, 22, 4
    sheet = Image.new("RGB", (left + len(columns) * (wide + gap), top + len(rows) * (high + gap)), (250, 250, 248))
    pen = ImageDraw.Draw(sheet)
    for j, caption in enumerate(columns):
        pen.text((left + j * (wide + gap) + 2, 3), caption, fill=(32, 32, 36), font=font(13))
    for i, (caption, photos) in enumerate(rows):
        pen.text((4, top + i * (high + gap) + high // 2 - 8), caption, fill=(32, 32, 36), font=font(13))
        for j, photo in enumerate(photos):
            sheet.paste(Image.fromarray(photo), (left + j * (wide + gap), top + i * (high + gap)))
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(target, quality=78, optimize=True)


COLUMNS = {
    "gallery, clear": ("town3", "gallery", "left"),
    "query, rain": ("town3", "rain", "left"),
    "query, rain, front": ("town10", "rain", "front"),
    "overcast": ("robotcar", "overcast", "ahead"),
    "night": ("robotcar", "night", "ahead"),
}


def draw_pictures(folder: Path, places: int, size: tuple[int, int] = (240, 135), place: int = 7) -> None:
    """Draw one place under every preset (town_presets.jpg) and under the extremes of each knob (town_knobs.jpg)."""

    def row(knobs: Knobs) -> list[np.ndarray]:
        keys = list(COLUMNS.values())
        pictures = {}
        for town, run, camera in keys:
            found = drawn(
                Settings(size, places, 0, knobs),
                lambda t, r, c, p, key=(town, run, camera): (t, r, c) == key and p == place,
            )
            pictures[town, run, camera] = next(photo for *_, photo, _ in found)
        return [pictures[key] for key in keys]

    _sheet([(name, row(knobs)) for name, knobs in PRESETS.items()], list(COLUMNS), folder / "town_presets.jpg")
    changes = [("repetition 1", {"repetition": 1.0}), ("traffic 0", {"traffic": 0.0}), ("traffic 3", {"traffic": 3.0})]
    changes += [("domain_gap 0", {"domain_gap": 0.0}), ("domain_gap 2", {"domain_gap": 2.0})]
    _sheet([(name, row(replace(Knobs(), **c))) for name, c in changes], list(COLUMNS), folder / "town_knobs.jpg")


def build_parser() -> OneLineParser:
    parser = benchmark_parser("checks.town_presets", __doc__)
    parser.add_argument("--places", type=positive, default=24, metavar="N", help="places per town")
    parser.add_argument(
        "--size", type=positive, nargs=2, default=(224, 126), metavar=("W", "H"), help="of the pictures, in pixels"
    )
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="also draw the pictures of docs/town.md")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    size = tuple(args.size)
    figures = {name: measure(Settings(size, args.places, 0, knobs)) for name, knobs in tqdm(PRESETS.items(), "presets")}
    print(json.dumps(figures, indent=1))
    write_record(args.out, {"places": args.places, "size": size, "town_version": VERSION, "presets": figures})
    if args.pictures:
        draw_pictures(args.pictures, args.places)
    return 0


if __name__ == "__main__":
    sys.exit(main())
