"""From 30 imported pictures to a measured model: three commands, no option but names, timed.

    python bench/own_category.py [--category chair] [--images 30]

Renders pictures of one category (docs/synthetic_world.md) with other instances than the embedded backbone has seen, writes their keypoints
as a COCO file as annotation tools do, without masks, boxes or depth, and runs ``import``, ``build`` and ``eval_spair``.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts its threads

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from semalign3d_core.cli import eval_spair
from semalign3d_core.cli.main import main as semalign3d
from semalign3d_core.datasets.folder import FolderDataset


@dataclass
class Options:
    """Options of the benchmark."""

    category: str = "chair"
    """Category to render."""
    images: int = 30
    """Pictures."""
    work: Path | None = None
    """Folder to work in; nothing takes a temporary one."""
    seed: int = 77
    """Of the pictures."""


def render(folder: Path, options: Options) -> Path:
    """Pictures and a COCO keypoint file of them; returns the file."""
    world = folder / "world"
    sizes = ["--train", "0", "--test", str(options.images), "--pairs", "1", "--seed", str(options.seed), "--workers", "1"]
    semalign3d(["synth", "--output", str(world), "--categories", options.category, *sizes])
    dataset = FolderDataset(world)
    names = list(dataset.keypoint_spec(options.category).names)
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": options.category, "keypoints": names}]}
    for number, record in enumerate(dataset.images(options.category)):
        content["images"].append({"id": number, "file_name": record.path.name, "width": record.width, "height": record.height})
        points = [[0, 0, 0] if x != x else [float(x), float(y), 2] for x, y in record.keypoints]
        annotation = {"id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "keypoints": sum(points, [])}
        content["annotations"].append(annotation)
    (folder / "labels.json").write_text(json.dumps(content))
    return folder / "labels.json"


def main(options: Options, folder: Path) -> None:
    labels, name = render(folder, options), options.category
    data, models = str(folder / "data"), str(folder / "models")
    commands = [
        (
            semalign3d,
            ["import", str(labels), "--images", str(folder / "world" / "JPEGImages" / name), "--output", data, "--category", name],
        ),
        (semalign3d, ["build", "--dataset", data, "--category", name, "--output", models]),
        (eval_spair.main, ["--dataset", data, "--models", models, "--method", "semalign3d", "--output", str(folder / "out")]),
    ]
    started = time.monotonic()
    for run, arguments in commands:
        before, cpu = time.monotonic(), time.process_time()
        code = run(arguments)
        print(
            f"--- {arguments[0]}: exit code {code}, {time.monotonic() - before:.0f} s, {time.process_time() - cpu:.0f} s of CPU", flush=True
        )
    print(f"in all {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    chosen = tyro.cli(Options, description=__doc__)
    if chosen.work is not None:
        main(chosen, chosen.work)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(chosen, Path(temporary))
