"""Every shell block of README and docs runs, in order and as it is written, in a folder with a small data set.

Trainings and renderings get the additional options of ``SHORTER``, which make them small. A block with a comment
``<!-- not run in tests: REASON -->`` before it is skipped with that reason; its commands are parsed in test_docs.py.
"""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from markdown_blocks import command_lines, marked_blocks
from PIL import Image
from published_format import write_pf_pascal, write_pf_willow

from semalign3d_core.cli.eval_spair import main as eval_spair
from semalign3d_core.cli.main import main
from semalign3d_core.datasets.folder import FolderDataset

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}
BLOCKS = {name: marked_blocks(text, "bash", "sh", "") for name, text in PAGES.items()}
SMALL_NETWORK = ["--config.steps", "2", "--config.width", "128"]
SHORTER = {
    ("synth",): ["--categories", "chair", "--train", "2", "--val", "1", "--test", "2", "--pairs", "1", "--size", "64", "--workers", "1"],
    ("train", "compact"): [
        "--config.images",
        "6",
        "--config.steps",
        "1",
        "--config.per-category",
        "1",
        "--config.points",
        "8",
        "--workers",
        "1",
    ],
    ("train", "geoaware"): SMALL_NETWORK,
    ("train", "sfnet"): ["--config.epochs", "1", "--config.batch", "2", "--config.network.cells", "8", "--pictures", "2"],
    ("train", "spherical_maps"): ["--config.steps", "2"],
}
NEEDS_A_MODEL = ("docs/evaluation.md",)


@pytest.fixture(scope="session")
def chairs(tmp_path_factory):
    """A rendered data set of chairs with masks, depth and simulated features, and a model of it."""
    folder = tmp_path_factory.mktemp("chairs")
    sizes = ["--train", "12", "--val", "2", "--test", "4", "--pairs", "4", "--size", "128", "--workers", "1"]
    run(["semalign3d", "synth", "--output", str(folder / "mydata"), "--categories", "chair", *sizes, "--features", "sim"], folder, ())
    return folder


def own_pictures(folder, chairs):
    """What a user has who begins a category of their own: pictures, annotations as COCO and as a table, masks."""
    dataset = FolderDataset(chairs / "mydata")
    names, records = list(dataset.keypoint_spec("chair").names), dataset.images("chair")
    images, annotations, rows = [], [], []
    for kind in ("photos", "pictures", "masks", "SegmentationClass"):
        source = chairs / "mydata" / ("Segmentation" if kind in ("masks", "SegmentationClass") else "JPEGImages") / "chair"
        (folder / kind).symlink_to(source)
    for number, record in enumerate(records):
        images.append({"id": number, "file_name": record.path.name, "width": record.width, "height": record.height})
        points = [[0, 0, 0] if x != x else [float(x), float(y), 2] for x, y in record.keypoints]
        annotations.append({"id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "keypoints": sum(points, [])})
        rows.append([record.path.name, *(value if seen else "" for x, y, seen in points for value in (x, y))])
    for file, category in (("labels.json", "bottle"), ("annotations.json", "valve")):
        categories = [{"id": 1, "name": category, "keypoints": names}]
        (folder / file).write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    with open(folder / "points.csv", "w", newline="") as file:
        csv.writer(file).writerows([["image", *(f"{name}_{axis}" for name in names for axis in "xy")], *rows])
    for name, record in zip(("photo1.jpg", "new.jpg", "a.jpg", "b.jpg"), records, strict=False):
        (folder / name).symlink_to(record.path)


def run(words, folder, shorter=SHORTER):
    """Runs one command in ``folder`` (the current one): ours in this process, what else there is as a process."""
    program, *arguments = words
    if program == "eval_spair":
        return eval_spair(arguments)
    if program == "semalign3d":
        more = next((options for command, options in dict(shorter).items() if tuple(arguments[: len(command)]) == command), [])
        return main([*arguments, *more])
    done = subprocess.run([sys.executable if program == "python" else program, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.returncode


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, found in BLOCKS.items() if any(reason is None for _, reason in found)])
def test_shell_blocks_run(name, chairs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for folder in ("examples", "bench"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    own_pictures(tmp_path, chairs)
    if name != "README.md":
        (tmp_path / "mydata").symlink_to(chairs / "mydata")
    if name in NEEDS_A_MODEL:
        assert main(["build", "--dataset", "mydata", "--category", "chair", "--output", "models"]) == 0
    if name in ("docs/sfnet.md", "docs/geoaware.md"):
        published(tmp_path)
    for block, reason in BLOCKS[name]:
        for words in () if reason else command_lines(block):
            assert run(words, tmp_path) == 0, " ".join(words)


def published(folder):
    """The published data sets that a page names, tiny."""
    write_pf_pascal(folder / "PF-PASCAL")
    write_pf_willow(folder / "PF-WILLOW")
    for kind in ("JPEGImages", "SegmentationClass"):
        (folder / "VOC2012" / kind).mkdir(parents=True)
    for number in range(2):
        values = np.random.default_rng(number).integers(0, 255, (60, 80, 3), np.uint8)
        Image.fromarray(values).save(folder / "VOC2012" / "JPEGImages" / f"2007_00003{number}.jpg")
        Image.fromarray((values[..., 0] > 99).astype(np.uint8)).save(folder / "VOC2012" / "SegmentationClass" / f"2007_00003{number}.png")


@pytest.mark.parametrize("name, number", [(name, n) for name, found in BLOCKS.items() for n, (_, reason) in enumerate(found) if reason])
def test_shell_blocks_that_are_not_run(name, number):
    block, reason = BLOCKS[name][number]
    pytest.skip(f"{name}: {block.splitlines()[0][:60]}: {reason}")
