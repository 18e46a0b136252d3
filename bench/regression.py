"""Did anything change that should not? Records what the public commands compute, and compares a later state with the record.

    python bench/regression.py record DIR      writes DIR: a synthetic data set, models, and results.json
    python bench/regression.py compare DIR     computes it again, prints what differs and by how much; exit code 1 if anything does

Only commands, file formats, the runner of the test vectors and the topics of the node are used, so that a record outlives any
change inside the packages. ``--tree`` runs the sources of another checkout; ``. scripts/env.sh`` first, or the node is left out.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # sums depend on the number of threads in their last digits

import hashlib
import itertools
import json
import math
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from safetensors import safe_open

CATEGORIES = ("aeroplane", "bottle", "car", "chair", "mug", "tvmonitor")
SIMILARITY = ("nearest_neighbour", "soft_argmax", "window_soft_argmax", "kernel_soft_argmax")
VIEWS = ("back", "front", "left", "right")
CHANGES_ALWAYS = {"seconds", "latency", "versions", "image", "dataset", "output", "models", "templates", "cache", "created", "peak_mib"}
NOTHING = "(nothing)"


@dataclass
class Options:
    """Options of the regression check."""

    action: tyro.conf.Positional[Literal["record", "compare"]]
    """What to do."""
    folder: tyro.conf.Positional[Path]
    """Folder of the record."""
    tree: Path = Path(__file__).parents[1]
    """Checkout whose sources run."""
    only: tuple[str, ...] = ()
    """Parts to compute, for example align build; nothing means all."""
    tolerance: float = 1e-5
    """Largest difference of two numbers, relative to the larger one of 1 and the recorded number."""


class Commands:
    """The public commands of the checkout ``tree``, each in a process of its own that reads the sources of this checkout."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree.resolve()
        path = [str(self.tree), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path), CUDA_VISIBLE_DEVICES="")

    def __call__(self, script: str, *arguments: object, accepted: tuple[int, ...] = (0,)) -> str:
        """Runs a script of the checkout and returns what it printed; raises with its output if it failed."""
        command = [sys.executable, str(self.tree / script), *map(str, arguments)]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if done.returncode not in accepted:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def semalign3d(self, *arguments: object) -> str:
        return self("scripts/semalign3d", *arguments)


# What is recorded. Each part takes (commands, record, out): the record's folder with world/ and models/, and a folder to write to.


def render(commands: Commands, out: Path) -> None:
    """The data set of all parts: images, depth, masks and simulated features of instances that no shipped model has seen."""
    counts = ["--train", 16, "--test", 10, "--pairs", 24, "--seed", 171, "--workers", 1]
    commands.semalign3d("synth", "--output", out, "--categories", *CATEGORIES, *counts, "--features", "sim", "--channels", 48)


def synth(commands: Commands, record: Path, out: Path) -> dict:
    """Hash of every rendered file."""
    render(commands, out / "world")
    files = sorted(path for path in (out / "world").rglob("*") if path.is_file())
    return {str(path.relative_to(out / "world")): _file_hash(path) for path in files}


def align(commands: Commands, record: Path, out: Path) -> dict:
    """Alignments with the embedded backbone: from the image alone, with masks and disparity, without masks, and with a known camera."""
    ways: dict[str, tuple[list[str], tuple[str, ...]]] = {
        "image alone": ([], CATEGORIES),
        "masks and disparity": (["--masks", "precomputed", "--depth", "precomputed"], CATEGORIES),
        "no masks": (["--masks", "none"], ("chair", "mug")),
        "camera": (["--camera", "300,300,128,128"], ("chair",)),
    }
    return {
        f"{way}: {category}": _align(commands, out / f"{way}{category}", _images(record, category), category, options, record)
        for way, (options, categories) in ways.items()
        for category in categories
    }


def align_simulated(commands: Commands, record: Path, out: Path) -> dict:
    """Alignments with simulated features and the record's models."""
    options = ["--backbone", "precomputed:sim", "--masks", "precomputed", "--depth", "precomputed", "--models", record / "models" / "em"]
    return {category: _align(commands, out / category, _images(record, category)[:5], category, options, record) for category in CATEGORIES}


def align_published(commands: Commands, record: Path, out: Path) -> dict:
    """Alignments by the published optimiser."""
    options = ["--preset", "reference", "--backbone", "precomputed:sim", "--masks", "precomputed", "--depth", "precomputed"]
    options += ["--models", record / "models" / "reference"]
    return {category: _align(commands, out / category, _images(record, category)[:1], category, options, record) for category in ("chair",)}


def match(commands: Commands, record: Path, out: Path) -> dict:
    """Points carried from one image to another, with every preset of the transfer."""
    found = {}
    for category, transfer in [*itertools.product(("chair",), ("fast", "keypoints", "reference")), ("mug", "fast"), ("car", "keypoints")]:
        source, target = _images(record, category)[:2]
        folder = out / f"{category}_{transfer}"
        arguments = ["--category", category, "--points", "100,110 128,128 150,120 128,160", "--transfer", transfer, "--output", folder]
        commands.semalign3d("match", source, target, *arguments)
        found[f"{category}: {transfer}"] = _results(folder)
    return found


def build(commands: Commands, record: Path, out: Path) -> dict:
    """Models of both presets from a tiny set."""
    return {f"{preset}: chair": _build(commands, record, out / preset, ("chair",), preset) for preset in ("em", "reference")}


def eval_spair(commands: Commands, record: Path, out: Path) -> dict:
    """Predictions and results of every method; KAP in all variants."""
    sim = ["--backbone", "precomputed:sim", "--masks", "precomputed", "--depth", "precomputed"]
    runs = {method: ["--method", method, *sim, "--kap", "as_released"] for method in (*SIMILARITY, "adaptive_pose")}
    runs["nearest_neighbour, visible_only"] = ["--method", "nearest_neighbour", *sim, "--kap", "visible_only"]
    runs["nearest_neighbour, spherical"] = ["--method", "nearest_neighbour", *sim, "--kap", "spherical", "--threshold", "image"]
    runs["nearest_neighbour, compact"] = ["--method", "nearest_neighbour"]
    runs["template_pose"] = ["--method", "template_pose", "--masks", "compact", "--templates", _templates(record, out / "templates")]
    semalign3d = ["--method", "semalign3d", *sim, "--models", record / "models" / "em"]
    runs["semalign3d"] = [*semalign3d, "--kap", "as_released"]
    runs["semalign3d, keypoints"] = [*semalign3d, "--transfer", "keypoints"]
    runs["semalign3d, transfer as published"] = [*semalign3d, "--transfer", "reference"]
    runs["semalign3d, compact"] = ["--method", "semalign3d", "--masks", "similarity"]
    found = {}
    for number, (name, arguments) in enumerate(runs.items()):
        folder = out / str(number)
        shared = ["--dataset", record / "world", "--output", folder, "--categories", "chair", "mug", "--gallery", 0, "--limit", 10]
        commands("scripts/eval_spair", *shared, *arguments)
        lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
        results = json.loads((folder / "results.json").read_text())
        numbers = {name: results[name] for name in ("protocol", "per_category", "all")}
        found[name] = {"predictions": {line["pair"]: line["points"] for line in lines}, "results": numbers}
    return found


def vectors(commands: Commands, record: Path, out: Path) -> dict:
    """The test vectors that are met."""
    lines = commands("test/conformance/run.py", commands.tree / "test" / "data" / "vectors", accepted=tuple(range(126))).splitlines()
    return {words[0]: words[1] for words in map(str.split, lines) if len(words) > 1 and words[1] == "ok"}


def node(commands: Commands, record: Path, out: Path) -> dict:
    """Messages of the node on two short streams; empty where there is no ROS."""
    environment = dict(commands.environment, ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST")
    environment.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randint(1, 101)))
    command = [sys.executable, str(Path(__file__).resolve().with_name("regression_stream.py")), str(commands.tree), str(record / "world")]
    if subprocess.run([sys.executable, "-c", "import rclpy, semalign3d_ros.msg"], env=environment, capture_output=True).returncode:
        print("node: left out, there is no ROS (. scripts/env.sh)", file=sys.stderr)
        return {}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the node's stream failed:\n{done.stdout}\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


PARTS: dict[str, Callable[[Commands, Path, Path], dict]] = {
    "synth": synth,
    "align": align,
    "align_simulated": align_simulated,
    "align_published": align_published,
    "match": match,
    "build": build,
    "eval_spair": eval_spair,
    "vectors": vectors,
    "node": node,
}


def _images(record: Path, category: str) -> list[Path]:
    return sorted((record / "world" / "JPEGImages" / category).glob("test_*.jpg"))


def _align(commands: Commands, out: Path, images: list[Path], category: str, options: list, record: Path) -> dict:
    data = ["--dataset", record / "world"] if "precomputed" in map(str, options) else []
    commands.semalign3d("align", *images, "--category", category, "--output", out, *data, *options)
    return _results(out)


def _results(folder: Path) -> dict:
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def _build(commands: Commands, record: Path, out: Path, categories: tuple[str, ...], preset: str) -> dict:
    arguments = ["--backbone", "precomputed:sim", "--preset", preset, "--seed", 0, "--output", out]
    commands.semalign3d("build", "--dataset", record / "world", "--category", *categories, *arguments)
    return {category: _model(out / f"{category}.safetensors") for category in categories}


def _model(path: Path) -> dict:
    """The tensors of a category model as lists, and the header without what says when and where it was made."""
    with safe_open(path, "np") as stored:
        header = json.loads(next(iter(stored.metadata().values())))
        tensors = {name: stored.get_tensor(name).astype(float).tolist() for name in sorted(stored.keys())}
    kept = {name: header[name] for name in ("category", "keypoint_names", "flip_permutation", "backbone", "calibration")}
    return {"tensors": tensors, "header": kept}


def _templates(record: Path, folder: Path) -> Path:
    """Template images for ``template_pose``: any images will do, the numbers only have to stay the same."""
    for category in ("chair", "mug"):
        (folder / category / "set").mkdir(parents=True)
        for view, image in zip(VIEWS, _images(record, category), strict=False):
            shutil.copy(image, folder / category / "set" / f"{view}.jpg")
    return folder


def _file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# Recording and comparing


def compute(options: Options, record: Path, out: Path) -> Iterator[tuple[str, dict]]:
    """Yields (part, its numbers) of the parts that are asked for, one after the other."""
    commands = Commands(options.tree)
    for name in options.only or PARTS:
        begin = time.monotonic()
        (out / name).mkdir()
        found = PARTS[name](commands, record, out / name)
        shutil.rmtree(out / name)
        print(f"{name}: {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
        yield name, found


def record_all(options: Options) -> int:
    """Writes the record."""
    record = options.folder.resolve()
    if (record / "results.json").exists():
        sys.exit(f"{record} holds a record; remove it or choose another folder")
    record.mkdir(parents=True, exist_ok=True)
    commands = Commands(options.tree)
    render(commands, record / "world")
    _build(commands, record, record / "models" / "em", CATEGORIES, "em")
    _build(commands, record, record / "models" / "reference", ("chair",), "reference")
    with tempfile.TemporaryDirectory() as folder:
        found = dict(compute(options, record, Path(folder)))
    (record / "results.json").write_text(json.dumps(found))
    print(f"{record}: {sum(1 for _ in _leaves(found))} values of {len(found)} parts recorded")
    return 0


def compare_all(options: Options) -> int:
    """Computes everything again, prints the differences; 1 if there are some."""
    record = options.folder.resolve()
    if not (record / "results.json").exists():
        sys.exit(f"{record} holds no record; make one with: python bench/regression.py record {options.folder}")
    before = json.loads((record / "results.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        differing = sum(_report(part, before[part], after, options.tolerance) for part, after in compute(options, record, Path(folder)))
    print("everything as recorded" if not differing else f"{differing} kinds of values differ")
    return int(differing > 0)


def _report(part: str, before: dict, after: dict, tolerance: float) -> int:
    """Prints the differences of a part, one line for all values with the same name in the same group; returns how many lines."""
    old, new = dict(_leaves(before)), dict(_leaves(after))
    differences, largest = defaultdict(list), 0.0
    for path, value in old.items():
        size = _difference(value, new.get(path, NOTHING))
        if size > tolerance:
            differences[_kind(path)].append((size, path, value, new.get(path, NOTHING)))
        else:
            largest = max(largest, size)
    added = sorted({_kind(path) for path in new.keys() - old.keys()})
    state = f"{sum(map(len, differences.values()))} DIFFER" if differences else "as recorded"
    print(f"{part}: {len(old)} values {state}; largest difference that is tolerated {largest:.1e}", flush=True)
    for kind, found in sorted(differences.items()):
        size, path, value, now = max(found, key=lambda entry: entry[0])
        print(f"   {kind}: {len(found)} differ, most {'/'.join(path)}: {value!r:.60} -> {now!r:.60} ({size:.2g})")
    if added:
        print(f"   new, not compared: {len(added)} kinds of values: {', '.join(added[:8])}")
    return len(differences)


def _leaves(value: object, path: tuple[str, ...] = ()):
    """(path, value) of everything in nested dictionaries and lists, without what changes always."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in CHANGES_ALWAYS:
                yield from _leaves(item, (*path, key))
    elif isinstance(value, list):
        yield (*path, "length"), len(value)
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, str(index)))
    else:
        yield path, value


def _kind(path: tuple[str, ...]) -> str:
    """The path without what tells one image, pair or element from another."""
    return "/".join("*" if re.search(r"\d{3}|^\d+$", word) else word for word in path)


def _difference(before: object, after: object) -> float:
    """How much two values differ: relative to the larger one of 1 and the recorded one; infinite for what is no number."""
    numbers = [isinstance(value, (int, float)) and not isinstance(value, bool) for value in (before, after)]
    if not all(numbers):
        return 0.0 if before == after and type(before) is type(after) else math.inf
    if math.isnan(before) or math.isnan(after) or math.isinf(before) or math.isinf(after):
        return 0.0 if before == after or (math.isnan(before) and math.isnan(after)) else math.inf
    return abs(after - before) / max(1.0, abs(before))


if __name__ == "__main__":
    chosen = tyro.cli(Options, description=__doc__)
    sys.exit(record_all(chosen) if chosen.action == "record" else compare_all(chosen))
