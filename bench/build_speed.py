"""Time and memory of the category build beside the published procedure, on random but consistent data.

    python bench/build_speed.py [--keypoints 15 30] [--images 55] [--channels 768] [--reference-seconds 60]

Each build runs in a process of its own (wall seconds on the processors that it may use, CPU seconds of all, peak memory). "em" and
"reference" are our presets, as users run them and without calibration, with features given (cells x cells x channels per image and
mirror image, made on the fly). "published" runs the published
procedure's own optimisation steps for a limited time and extrapolates to their number: scalar Beta fits one by one (SciPy), grid
search of 10^6 candidates per keypoint with 100 + 100 features, 20 000 AdamW steps on all features. At the end the reconstructions
of the conformance vectors: our descent beside the grid search and the AdamW steps by which they were made.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test" / "helpers"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test" / "conformance"))

from semalign3d_core.calibration.build import build_category
from semalign3d_core.category.annotations.views import Providers
from semalign3d_core.category.config import BuildConfig
from semalign3d_core.category.published.shape import COPIES, DESCENT
from semalign3d_core.category.published.sparse import placeable, reconstruct
from semalign3d_core.category.statistics.beta_tables import beta_table, noise_augmentation
from semalign3d_core.category.statistics.geometric_features import BetaTable, geometric_loss
from semalign3d_core.datasets.records import ImageRecord, KeypointSpec
from semalign3d_core.geometry.image_grid import SquareGrid
from semalign3d_core.perception.backbones import FeatureBackbone
from semalign3d_core.perception.depth import DepthSource
from semalign3d_core.perception.evidence import DepthMap, FeatureMap
from semalign3d_core.perception.masks import MaskSource
from semalign3d_core.runtime.config import load_preset
from semalign3d_core.runtime.threads import processors

SIDE = 256
VECTORS = Path(__file__).resolve().parents[1] / "test" / "data" / "vectors" / "semalign3d"


@dataclass
class Options:
    keypoints: tuple[int, ...] = (15, 30)
    """Numbers of keypoints (30 is the most in SPair-71k)."""
    images: int = 55
    """Training images; each is also used mirrored."""
    channels: int = 768
    """Feature channels."""
    cells: int = 60
    """Feature cells per side."""
    presets: tuple[str, ...] = ("em", "reference")
    """Presets of ours to run."""
    calibrate: tuple[bool, ...] = (True, False)
    """Builds as users run them, which calibrate the confidence and align training images for that (True), and without (False)."""
    published_seconds: float = 20.0
    """CPU seconds spent on each part of the published procedure before it is extrapolated; 0 leaves it out."""
    child: str = ""
    """Internal: run one build in this process."""


class RandomSource(FeatureBackbone, DepthSource, MaskSource):
    """All three providers: features from a fixed random map of the pixel position, depth a plane, mask the keypoints' box."""

    name = "random"
    concurrent = True

    def __init__(self, data, channels, cells):
        self.data, self.channels = data, channels
        self.base = torch.randn(channels, cells, cells, generator=torch.Generator().manual_seed(0))

    def _pixels(self, image):
        n = int(image.record.name)
        return ((self.data.points[n] + 0.5) * SIDE).numpy()[self.data.visible[n].numpy()], n

    def extract(self, image):
        values = torch.nn.functional.normalize(self.base + 0.1 * float(image.record.name), dim=0)
        return FeatureMap(values, SquareGrid(SIDE, SIDE, self.base.shape[1]))

    def estimate(self, image):
        pixels, n = self._pixels(image)
        inverse = self.data.inverse[n].numpy()[self.data.visible[n].numpy()]
        plane = np.linalg.lstsq(np.c_[pixels, np.ones(len(pixels))], inverse, rcond=None)[0]
        rows, columns = np.mgrid[0:SIDE, 0:SIDE]
        return DepthMap(torch.from_numpy(1 + 0.3 * (columns * plane[0] + rows * plane[1] + plane[2])).float(), "disparity")

    def segment(self, image, box=None, points=None):
        pixels, _ = self._pixels(image)
        (left, top), (right, bottom) = pixels.min(0), pixels.max(0)
        mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        mask[max(int(top), 0) : int(bottom) + 1, max(int(left), 0) : int(right) + 1] = True
        return mask


def run_child(options):
    """One build; prints a JSON line."""
    config = replace(load_preset(BuildConfig, "build", options.child), calibrate=options.calibrate[0])
    result = built(options.keypoints[0], options.images, options.channels, options.cells, config)
    result["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps(result))


def built(keypoints, images, channels, cells, config):
    """{"cpu", "wall": seconds, "steps": those of every step, "start"} of one build."""
    from random_category import random_category

    data, _ = random_category(images, keypoints, seed=3)
    source = RandomSource(data, channels, cells)
    pixels = ((data.points + 0.5) * SIDE).where(data.visible[..., None], torch.nan).numpy().astype(np.float32)
    spec = KeypointSpec(tuple(f"k{n}" for n in range(keypoints)), tuple(data.flip.tolist()))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(path)  # what the pictures show plays no role here
        records = [ImageRecord("random", f"{n:03d}", path, SIDE, SIDE, pixels[n]) for n in range(images)]
        began, wall = time.process_time(), time.perf_counter()
        _, report = build_category("random", spec, records, Providers(source, source, source), config)
    cpu, wall = time.process_time() - began, time.perf_counter() - wall
    return {"cpu": cpu, "wall": wall, "steps": report["seconds"], "start": report["start"]}


def published(keypoints, images, limit):
    """CPU seconds of the published steps, extrapolated from ``limit`` seconds of each."""
    from random_category import random_category

    data, truth = random_category(images, keypoints, seed=3)
    shapes, visible = truth.shapes.float(), data.visible
    shapes = torch.cat([shapes, shapes[:, data.flip] * torch.tensor([-1.0, 1, 1])])
    noisy, mask = noise_augmentation(shapes, torch.cat([visible, visible[:, data.flip]]), COPIES, torch.Generator().manual_seed(0))
    table = beta_table(noisy, mask)
    fits = 2 * len(table.edge1) + 3 * len(table.vertex)
    samples = np.random.default_rng(0).beta(8, 5, int(mask.float().mean() * len(mask)))
    per_fit = _per_call(lambda: stats.beta.fit(samples, floc=0, fscale=1), limit)
    return {"Beta fits": fits * per_fit, **published_search(table, keypoints, 100, 20000, limit)}


def published_search(table, keypoints, grid, steps, limit):
    """CPU seconds of the grid search of ``grid``^3 candidates per keypoint and of the AdamW ``steps``, extrapolated."""
    placed = int(placeable(table, keypoints).sum())
    points = torch.randn(1, keypoints, 3).requires_grad_()
    optimiser = torch.optim.AdamW([points])

    def refine():
        optimiser.zero_grad()
        geometric_loss(points, table).sum().backward()
        optimiser.step()

    candidates = torch.randn(1000, keypoints, 3)
    part = BetaTable(
        table.edge1[:100], table.edge2[:100], table.edge_beta[:100], table.triangle[:100], table.vertex[:100], table.tet_beta[:100]
    )
    with torch.no_grad():
        per_batch = _per_call(lambda: geometric_loss(candidates, part), limit)
    return {"grid": grid**3 / 1000 * (placed - 2) * per_batch, "refinement": steps * _per_call(refine, limit)}


def reconstruction_vectors(limit):
    """Our reconstruction of the conformance vectors beside the published search of their making."""
    from checks_semalign3d import table_of, tensors

    print("\nreconstructions of the conformance vectors (CPU seconds)")
    for path in sorted(VECTORS.glob("sparse_reconstruction_*.npz")):
        with np.load(path) as arrays:
            v = tensors(arrays)
        table, count = table_of(v), len(v["true_shape"])
        began = time.process_time()
        _, loss = reconstruct(table, count, DESCENT, torch.Generator().manual_seed(0))
        own = time.process_time() - began
        parts = published_search(table, count, int(v["grid_points_per_dim"]), int(v["refine_iters"]), limit)
        text = ", ".join(f"{name} {seconds:.1f}" for name, seconds in parts.items())
        losses = f"loss {loss:.4f}, reference {float(v['geom_loss_grid_refined_true'][1]):.4f}"
        print(f"{path.stem:30s} ours {own:5.1f}  published {sum(parts.values()):6.1f} ({text})  {losses}", flush=True)


def _per_call(function, limit):
    function()
    began, calls = time.process_time(), 0
    while calls < 3 or time.process_time() - began < limit / 3:
        function()
        calls += 1
    return (time.process_time() - began) / calls


def print_build(preset, keypoints, calibrate, options):
    """A line about one build in a process of its own."""
    command = [sys.executable, __file__, "--child", preset, "--keypoints", str(keypoints), "--images", str(options.images)]
    command += ["--channels", str(options.channels), "--cells", str(options.cells), "--calibrate", str(calibrate)]
    done = subprocess.run(command, capture_output=True, text=True)
    what = preset if calibrate else f"{preset} without calibration"
    if done.returncode:
        print(f"{what:32s} failed: {done.stderr.strip().splitlines()[-1]}")
        return
    r = json.loads(done.stdout.splitlines()[-1])
    steps = ", ".join(f"{name} {seconds:.1f}" for name, seconds in r["steps"].items())
    print(
        f"{what:32s} {r['wall']:6.1f} s  {r['cpu']:6.1f} s CPU  {r['memory']:.2f} GiB  start {r['start']}  (of the seconds: {steps})",
        flush=True,
    )


def main(options):
    torch.set_num_threads(1)
    if options.child:
        run_child(options)
        return
    print(f"{processors()} processors")
    for keypoints in options.keypoints:
        print(f"\nK = {keypoints}, {options.images} images + mirrored, {options.cells} x {options.cells} x {options.channels} features")
        for preset in options.presets:
            for calibrate in options.calibrate:
                print_build(preset, keypoints, calibrate, options)
        if options.published_seconds:
            parts = published(keypoints, options.images, options.published_seconds)
            text = ", ".join(f"{name} {seconds:.0f}" for name, seconds in parts.items())
            print(f"published  {sum(parts.values()):7.0f} s CPU for shape and statistics alone (extrapolated: {text})", flush=True)
    if options.published_seconds:
        reconstruction_vectors(options.published_seconds)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
