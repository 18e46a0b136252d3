"""How long SPair-71k's 12 234 test pairs take to transfer and score once features and alignments are cached.

    python bench/throughput.py                        # SemAlign3D, two processes, a stand-in with SPair-71k's counts
    python bench/throughput.py --method nearest_neighbour --workers 1

The stand-in has the pairs per category of SPair-71k, random images, features of 60 x 60 cells and random category models: what is
measured is the machinery, not accuracy. It takes 3 GB in ``--folder`` and is kept there for the next run. The first evaluation
fills the cache (features are precomputed, alignments are not); then the matches are removed from it and the second one is measured.
"""

import argparse
import itertools
import json
import os
import shutil
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import save_file

from semalign3d_core.category.model import BetaTable, CategoryModel
from semalign3d_core.category.storage import save_model
from semalign3d_core.datasets.tables import SPAIR_CATEGORIES
from semalign3d_core.evaluation.run.config import EvaluationConfig
from semalign3d_core.evaluation.run.runner import evaluate
from semalign3d_core.geometry.rotations import shape_diameter, uniform_rotations

PAIRS = (690, 650, 702, 702, 870, 644, 564, 600, 646, 640, 600, 600, 702, 650, 862, 664, 756, 692)  # SPair-71k, test split
KEYPOINTS, DENSE, CELLS, WIDTH, HEIGHT = 12, 300, 60, 500, 375


def make_stand_in(folder, channels, pairs, images=0):
    """Writes the data set folder and one random model for each of as many categories as there are numbers of ``pairs``.

    images: of a category; 0: as many as its pairs need
    """
    write_head(folder)
    layout, generator = [], torch.Generator().manual_seed(0)
    for category, count in zip(SPAIR_CATEGORIES, pairs, strict=False):
        model = random_model(category, channels, generator)
        save_model(model, folder / "models" / f"{category}.safetensors")
        number = images or next(n for n in itertools.count(2) if n * (n - 1) >= count)
        annotations = [write_image(folder, category, f"{index:03d}", model, generator) for index in range(number)]
        for a, b in itertools.islice(itertools.permutations(range(number), 2), count):
            layout.append(_write_pair(folder, category, a, b, annotations, len(layout)))
    (folder / "Layout" / "large").mkdir(parents=True)
    (folder / "Layout" / "large" / "test.txt").write_text("\n".join(layout) + "\n")


def write_head(folder):
    """Writes what a data set folder holds besides its images."""
    names = [f"part{k}" for k in range(KEYPOINTS)]
    specs = {c: {"names": names, "flip_permutation": list(range(KEYPOINTS))} for c in SPAIR_CATEGORIES}
    _json(folder / "keypoints.json", specs)
    _json(folder / "Features" / "random" / "grid.json", {"padding": "bottom_right"})


def random_model(category, channels, generator):
    """A category model of random shape and features."""

    def unit(*shape):
        return torch.nn.functional.normalize(torch.randn(*shape, generator=generator), dim=-1)

    shape = torch.randn(KEYPOINTS, 3, generator=generator)
    shape = (shape - shape.mean(0)) / shape_diameter(shape)
    weights = torch.rand(DENSE, KEYPOINTS, generator=generator) ** 8
    pairs = torch.tensor(list(itertools.combinations(range(KEYPOINTS), 2)))
    modes = torch.nn.functional.normalize(torch.randn(10, KEYPOINTS * 3, generator=generator), dim=-1).reshape(10, KEYPOINTS, 3)
    quads = torch.tensor(list(itertools.combinations(range(KEYPOINTS), 4)))
    edge_beta, tet_beta = torch.full((len(pairs), 4), 2.0), torch.full((len(quads), 6), 2.0)
    betas = BetaTable(pairs, pairs.roll(1, 0), edge_beta, quads[:, :3], quads[:, 3], tet_beta)
    names, flip = tuple(f"part{k}" for k in range(KEYPOINTS)), tuple(range(KEYPOINTS))
    return CategoryModel(
        category, names, flip, "random", torch.ones(KEYPOINTS, dtype=torch.bool), shape,
        unit(KEYPOINTS, channels), torch.full((KEYPOINTS,), 0.6), torch.full((KEYPOINTS,), 0.1),
        unit(DENSE, channels), torch.full((DENSE,), 0.6), torch.full((DENSE,), 0.1), weights / weights.sum(1, keepdim=True),
        betas, modes, torch.full((10,), 1e-3), uniform_rotations(50), torch.tensor([1.5, 0.2]), torch.full((2,), torch.nan),
    )  # fmt: skip


def write_image(folder, category, name, model, generator):
    """Writes a random picture of a category with mask, depth, features and annotation; returns its keypoints."""
    for kind in ("JPEGImages", "Features/random", "Segmentation", "Depth"):
        (folder / kind / category).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(int(torch.randint(1 << 30, (1,), generator=generator)))
    small = rng.integers(0, 255, (HEIGHT // 25, WIDTH // 25, 3), np.uint8)
    cv2.imwrite(str(folder / "JPEGImages" / category / f"{name}.jpg"), cv2.resize(small, (WIDTH, HEIGHT)))
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[60:-60, 80:-80] = 255
    cv2.imwrite(str(folder / "Segmentation" / category / f"{name}.png"), mask)
    np.savez_compressed(folder / "Depth" / category / f"{name}.npz", depth=np.full((HEIGHT, WIDTH), 2.0, np.float32), kind="disparity")
    features = torch.randn(model.dense_features.shape[1], CELLS, CELLS, generator=generator).half()
    save_file({"features": features}, folder / "Features" / "random" / category / f"{name}.safetensors")
    keypoints = rng.uniform([90, 70], [WIDTH - 90, HEIGHT - 70], (KEYPOINTS, 2)).round(1)
    seen = rng.random(KEYPOINTS) < 0.8
    seen[:3] = True
    kps = {str(k): keypoints[k].tolist() if seen[k] else None for k in range(KEYPOINTS)}
    content = {"image_width": WIDTH, "image_height": HEIGHT, "kps": kps, "bndbox": [80, 60, WIDTH - 80, HEIGHT - 60]}
    _json(folder / "ImageAnnotation" / category / f"{name}.json", content)
    return kps


def _write_pair(folder, category, a, b, annotations, number):
    name = f"{number:06d}-{a:03d}-{b:03d}:{category}"
    common = [k for k in annotations[a] if annotations[a][k] and annotations[b][k]]
    content = {"src_imname": f"{a:03d}.jpg", "trg_imname": f"{b:03d}.jpg", "kps_ids": common, "viewpoint_variation": number % 3}
    _json(folder / "PairAnnotation" / "test" / f"{name}.json", content)
    return name


def _json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


class Watch(threading.Thread):
    """Memory of this process and all its descendants, and their CPU time, while it runs.

    peaks: largest sums over the processes, bytes: of resident sets, in which a page that several share (libraries, forked
        memory) counts in each of them, and of proportional sets, in which it counts once in all
    """

    def __init__(self):
        super().__init__(daemon=True)
        self.peaks, self.stop, self.ticks = np.zeros(2), threading.Event(), {}
        self.before = _cpu_ticks(os.getpid())

    def run(self):
        while not self.stop.wait(0.2):
            family = _family(os.getpid())
            self.peaks = np.maximum(self.peaks, sum(map(_memory, family)))
            self.ticks |= {pid: _cpu_ticks(pid) for pid in family}

    @property
    def cpu_seconds(self):
        return (sum(self.ticks.values()) - self.before) / os.sysconf("SC_CLK_TCK")


def _family(pid):
    children = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = [pid]
    for member in found:
        found += children.get(member, [])
    return found


def _cpu_ticks(pid):
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def _memory(pid):
    """(resident, proportional) set of a process in bytes."""
    try:
        lines = dict(line.split()[:2] for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    except OSError:
        return np.zeros(2)  # it has just ended
    return 1024 * np.array([int(lines["Rss:"]), int(lines["Pss:"])])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="semalign3d")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--channels", type=int, default=768)
    parser.add_argument("--share", type=float, default=1.0, help="share of the pairs, for a quick look")
    parser.add_argument("--categories", type=int, default=len(PAIRS), help="only the first so many")
    parser.add_argument("--folder", type=Path, default=Path("out/throughput"))
    options = parser.parse_args()
    pairs = tuple(max(2, round(count * options.share)) for count in PAIRS)
    folder = options.folder / f"{options.channels}_{sum(pairs)}"
    if not (folder / "Layout" / "large" / "test.txt").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        make_stand_in(folder, options.channels, pairs)
    config = EvaluationConfig(
        folder, folder / "results", backbone="precomputed:random", depth="precomputed", masks="precomputed", models=folder / "models",
        method=options.method, workers=options.workers, gallery=0,
        categories=SPAIR_CATEGORIES[: options.categories],
    )  # fmt: skip
    filling = evaluate(config).seconds
    shutil.rmtree(config.cache_folder / "matches")
    watch, started = Watch(), time.perf_counter()
    watch.start()
    measured = evaluate(config)
    seconds, pairs, elapsed = measured.seconds, len(measured.scores), time.perf_counter() - started
    watch.stop.set()
    cache, features = (sum(p.stat().st_size for p in root.rglob("*.safetensors")) for root in (config.cache_folder, folder / "Features"))
    print(f"\n{options.method}, {pairs} pairs, {options.workers} processes, {os.cpu_count()} CPUs, {options.channels} channels")
    print(f"{'filling the cache (alignments)':34s} {filling['images']:8.1f} s")
    for stage in ("read", "images", "pairs", "score", "total"):
        print(f"{'measured: ' + stage:34s} {seconds[stage]:8.1f} s")
    print(f"{'pairs per second':34s} {pairs / elapsed:8.1f}")
    print(f"{'CPU time, all processes':34s} {watch.cpu_seconds:8.1f} s = {1e3 * watch.cpu_seconds / pairs:.1f} ms per pair")
    print(f"{'12 234 pairs, free CPUs (estimate)':34s} {watch.cpu_seconds / pairs * sum(PAIRS) / options.workers:8.1f} s")
    print(f"{'largest sum of resident sets':34s} {watch.peaks[0] / 1e9:8.2f} GB (shared pages counted in every process)")
    print(f"{'largest sum of proportional sets':34s} {watch.peaks[1] / 1e9:8.2f} GB (shared pages counted once)")
    print(f"{'features on disk':34s} {features / 1e9:8.2f} GB")
    print(f"{'cache on disk':34s} {cache / 1e9:8.3f} GB")


if __name__ == "__main__":
    main()
