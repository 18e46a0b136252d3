"""How good the shapes are that the build finds: both presets side by side on the synthetic categories, against the truth.

    python bench/build_quality.py [--dataset DIR] [--images 55 25 15 10] [--draws 4] [--handedness 20]

Only annotated keypoints, masks and disparity are used. Each draw is a random subset of a pool of training images.
Columns: X0 = RMS of the mean keypoints against the true mean shape after similarity alignment, % of its diameter, mean and worst draw;
hand = draws with correct handedness (of a flat shape, which is its own mirror image: the surface lies on the side that cameras see);
pose = median rotation error of the training images, degrees (for a body of revolution, whose turn about its axis nothing but the view
determines, also that of the axis alone); cloud = median distance of the dense cloud to the surface of the
category's template, % of its diameter; warned = draws with a warning (few annotations, handedness hardly known, surface behind its
outline); refused = draws without a model.
The line "drawn objects" is the X0 error of the mean of the drawn objects' true shapes: what no build can know better.

Conditions: clean; keypoints off by 2 % of the box's longer side; disparity noise of 15 % of the object's range (smooth, as networks err);
disparity bent by a random power with sd 0.5 in the log; and degraded, all of them together. With the most images em is built under
every condition, with fewer under clean and degraded. Not among them unless asked for: blind, disparity that is noise alone, so that
builds come out reversed and ought to be warned about. All categories take about 90 minutes of one core, much of it bottle and reference.
"""

import logging
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from scipy.spatial import cKDTree

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from semalign3d_core.category.annotations.checks import Problems, checked_keypoints, present_keypoints, usable_flip
from semalign3d_core.category.annotations.constellations import constellations
from semalign3d_core.category.annotations.views import Providers, gather_view
from semalign3d_core.category.build import surface_cloud
from semalign3d_core.category.config import BuildConfig
from semalign3d_core.category.report import shape_warnings, surface_warnings
from semalign3d_core.category.shape.find import find_shape
from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.datasets.synthetic import instances
from semalign3d_core.datasets.synthetic.disparity import DisparityConfig, monocular_disparity
from semalign3d_core.geometry.image_grid import SquareGrid
from semalign3d_core.geometry.rotations import rotation_angle, similarity_alignment
from semalign3d_core.perception import depth, masks
from semalign3d_core.perception.backbones import FeatureBackbone
from semalign3d_core.perception.depth import DepthSource
from semalign3d_core.perception.evidence import DepthMap, FeatureMap
from semalign3d_core.runtime.config import load_preset
from semalign3d_core.runtime.errors import SemAlign3DError

NOISE, BEND = 0.15, 0.5
# condition -> (sd of keypoints in shares of the box's longer side, what happens to the disparity)
CONDITIONS = {
    "clean": (0.0, None),
    "keypoints": (0.02, None),
    "noise": (0.0, DisparityConfig(NOISE, 0.0, 0.0)),
    "bent": (0.0, DisparityConfig(0.0, BEND, 0.0)),
    "degraded": (0.02, DisparityConfig(NOISE, BEND, 0.0)),
    "blind": (0.02, DisparityConfig(100.0, 0.0, 0.0)),
}
USUAL = tuple(CONDITIONS)[:-1]  # blind is for the warnings alone
ALWAYS = ("clean", "degraded")  # whatever the number of images and the preset


@dataclass
class Options:
    dataset: Path | None = None
    """Folder written by 'semalign3d synth' (its training images are the pool); nothing renders one for this run."""
    pool: int = 110
    """Images per category in a pool that is rendered here."""
    seed: int = 1
    """Seed of the rendered pool."""
    categories: tuple[str, ...] = tuple(instances.CATEGORIES)
    """Categories to build."""
    images: tuple[int, ...] = (55, 25, 15, 10)
    """Numbers of training images."""
    draws: int = 4
    """Random draws per number of images."""
    reference_images: tuple[int, ...] = (55, 10)
    """Of these, those that the preset reference is built with: clean and degraded, one draw, because it takes ten times as long."""
    handedness: int = 20
    """Draws of the first number of images (clean, em) for the handedness test."""
    presets: tuple[str, ...] = ("em", "reference")
    """Presets to compare."""
    conditions: tuple[str, ...] = USUAL
    """Conditions to build under."""


class NoFeatures(FeatureBackbone):
    """A backbone for builds whose features nobody looks at."""

    name, channels = "none", 1

    def extract(self, image):
        return FeatureMap(torch.ones(1, 2, 2), SquareGrid(image.height, image.width, 2))


class WorseDepth(DepthSource):
    """A depth source with further errors on top of another's; the image's name seeds them."""

    def __init__(self, source, segmenter, config):
        self.source, self.segmenter, self.config = source, segmenter, config

    def estimate(self, image):
        values = self.source.estimate(image).values.numpy()
        mask = self.segmenter.segment(image).numpy()
        rng = np.random.default_rng(zlib.crc32(image.name.encode()))
        return DepthMap(torch.from_numpy(monocular_disparity(1 / np.maximum(values, 1e-6), mask, rng, self.config)), "disparity")


@dataclass(frozen=True)
class Pool:
    """All images of one category.

    Records, true rotations (N, 3, 3) and shapes (N, K, 3), names and flip permutation of its keypoints, {condition: views}.
    """

    category: str
    spec: object
    records: list
    rotations: torch.Tensor
    shapes: torch.Tensor
    providers: Providers
    views: dict

    def view(self, index, condition, options):
        """The view of image ``index`` under a condition; made once per preset's view options."""
        key = index, condition, options
        if key not in self.views:
            self.views[key] = self._gathered(self.records[index], *CONDITIONS[condition], options)
        return self.views[key]

    def _gathered(self, record, noise, disparity, options):
        rng = np.random.default_rng(zlib.crc32(f"keypoints {record.name}".encode()))
        size = max(record.box[2] - record.box[0], record.box[3] - record.box[1])
        limit = np.array([record.width - 1, record.height - 1])
        moved = record.keypoints + noise * size * rng.standard_normal(record.keypoints.shape)
        moved = np.where(np.isnan(moved), np.nan, np.clip(moved, 0, limit))
        record = replace(record, keypoints=moved.astype(np.float32))
        providers = self.providers
        if disparity is not None:
            providers = replace(providers, depth=WorseDepth(providers.depth, providers.segmenter, disparity))
        keypoints, _ = checked_keypoints(record, self.spec.names)
        return gather_view(record, keypoints, providers, options, usable_flip(self.spec.flip_permutation))


def load_pool(root, category):
    dataset = FolderDataset(root)
    providers = Providers(NoFeatures(), depth.create("precomputed", root), masks.create("precomputed", root))
    records = [r for r in dataset.images(category) if r.name.startswith("trn") and np.isfinite(r.keypoints[:, 0]).sum() >= 4]
    truths = [np.load(root / "Truth" / category / f"{record.name}.npz") for record in records]
    rotations, shapes = (torch.from_numpy(np.stack([truth[name] for truth in truths])).double() for name in ("R", "shape"))
    return Pool(category, dataset.keypoint_spec(category), records, rotations, shapes, providers, {})


def build(pool, chosen, config, condition):
    """(measures, warned, start) of one build: measures = X0 error, right hand, pose and axis error, cloud distance."""
    views = [pool.view(int(n), condition, config.views) for n in chosen]
    flip = usable_flip(pool.spec.flip_permutation)
    keypoints = torch.stack([v.keypoints for v in views])
    present = present_keypoints(keypoints, pool.spec.names, flip, config.policy, Problems())
    labels = present.nonzero()[:, 0]
    data = constellations(views, labels, flip)
    result = find_shape(data, config)
    labels = labels[result.placed]
    surface, _ = surface_cloud(views, result.model, result.data, config)
    warned = bool(shape_warnings(data, result.report) or surface_warnings(surface, result.model))
    error, right, pose, axis = shape_errors(result.model, pool, chosen, labels)
    cloud, height = cloud_error(surface, pool.category, labels)
    return (error, height > 0 if result.model.flat else right, pose, axis, cloud), warned, result.report["start"]


def shape_errors(model, pool, chosen, labels):
    """X0 error in percent, whether the mirror image fits worse, median errors of the poses and of the upright axis in degrees."""
    truth = torch.from_numpy(instances.mean_shape(pool.category)).double()[labels]
    diameter = torch.cdist(truth, truth).max()
    errors, turn = [], None
    for shape in (model.shape, model.shape * torch.tensor([-1.0, 1.0, 1.0])):
        scale, rotation, shift = similarity_alignment(shape, truth)
        errors.append(float((scale * shape @ rotation.T + shift - truth).square().sum(-1).mean().sqrt() / diameter))
        turn = rotation if turn is None else turn
    found, true = model.rotation @ turn.T, pool.rotations[chosen]
    tilt = (found * true)[:, :, 1].sum(1).clamp(-1, 1).acos()
    medians = [float(torch.rad2deg(angle).median()) for angle in (rotation_angle(found, true), tilt)]
    return 100 * errors[0], errors[0] < errors[1], *medians


def sample_error(pool, chosen):
    """X0 error in percent of the mean of the drawn objects' true shapes (generalised Procrustes analysis, mirror images added)."""
    truth = torch.from_numpy(instances.mean_shape(pool.category)).double()
    flip, mean = list(pool.spec.flip_permutation), truth
    for _ in range(5):
        aligned = []
        for shape in pool.shapes[chosen]:
            present = torch.isfinite(shape[:, 0])
            scale, rotation, shift = similarity_alignment(shape[present], mean[present])
            aligned.append(scale * shape @ rotation.T + shift)
        mean = torch.stack(aligned).nanmean(0)
        mean = (mean + mean[flip] * torch.tensor([-1.0, 1.0, 1.0])) / 2
    scale, rotation, shift = similarity_alignment(mean, truth)
    error = (scale * mean @ rotation.T + shift - truth).square().sum(-1).mean().sqrt()
    return 100 * float(error / torch.cdist(truth, truth).max())


def cloud_error(surface, category, labels):
    """Median distance of the dense points to the template's surface in percent, and how far they lie before its keypoints.

    The points are carried to the template by its keypoints; cameras see it from +z.
    """
    template = instances.template(category)
    keypoints = torch.from_numpy(template.complete_keypoints).double()[labels]
    points = surface @ keypoints
    distance = cKDTree(surface_points(template.vertices, template.faces)).query(points.numpy())[0]
    height = float(points[:, 2].mean() - keypoints[:, 2].mean())
    return 100 * float(np.median(distance) / torch.cdist(keypoints, keypoints).max()), height


def surface_points(vertices, faces, count=40000):
    rng = np.random.default_rng(0)
    corners = vertices[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    pick = rng.choice(len(faces), count, p=area / area.sum())
    a, b = rng.random((2, count, 1))
    fold = a + b > 1
    a, b = np.where(fold, 1 - a, a), np.where(fold, 1 - b, b)
    return corners[pick, 0] + a * (corners[pick, 1] - corners[pick, 0]) + b * (corners[pick, 2] - corners[pick, 0])


def draw(pool, count, seed):
    return np.sort(np.random.default_rng([seed, count]).permutation(len(pool.records))[:count])


def row(pool, count, preset, condition, draws):
    """Prints one line: means over the draws."""
    config = load_preset(BuildConfig, "build", preset)
    results, failures, warned, starts = [], [], 0, set()
    began = time.process_time()
    for seed in range(draws):
        try:
            measures, few, start = build(pool, draw(pool, count, seed), replace(config, seed=seed), condition)
        except SemAlign3DError as error:
            failures.append(str(error))
            continue
        results.append(measures)
        warned += few
        starts.add(start)
    seconds = (time.process_time() - began) / draws
    name = f"{pool.category:11s} {count:3d} {condition:9s} {preset:10s}"
    if not results:
        print(f"{name} refused {len(failures)} of {draws}: {failures[0][:100]}", flush=True)
        return
    x0, hand, pose, axis, cloud = (np.array(column, dtype=float) for column in zip(*results, strict=True))
    upright = f" (axis {axis.mean():4.1f})" if instances.CATEGORIES[pool.category].symmetric else ""
    print(
        f"{name} X0 {x0.mean():5.2f} (worst {x0.max():5.2f})  hand {int(hand.sum()):2d}/{len(hand):2d}  pose {pose.mean():5.1f}{upright}  "
        f"cloud {cloud.mean():5.2f}  warned {warned}  refused {len(failures)}  {'/'.join(sorted(starts))}  {seconds:.1f} s",
        flush=True,
    )


def rows(options, count):
    """(condition, preset, draws) of the rows with ``count`` images."""
    for condition in CONDITIONS:
        if condition in options.conditions and (count == options.images[0] or condition in ALWAYS):
            for preset in options.presets:
                if preset != "reference":
                    yield condition, preset, options.draws
                elif count in options.reference_images and condition in ALWAYS:
                    yield condition, preset, 1


def rendered(options, folder):
    from semalign3d_core.datasets.synthetic.writer import WriterConfig, write_data_set

    write_data_set(folder, options.categories, {"trn": options.pool}, 0, WriterConfig(seed=options.seed), workers=2)
    return folder


def main(options):
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        root = options.dataset or rendered(options, Path(temporary))
        for category in options.categories:
            pool = load_pool(root, category)
            print(f"\n{category}: pool of {len(pool.records)} images, {len(pool.spec.names)} keypoints")
            for count in options.images:
                own = [sample_error(pool, draw(pool, count, seed)) for seed in range(options.draws)]
                print(f"{category:11s} {count:3d} drawn objects        X0 {np.mean(own):5.2f} (worst {max(own):5.2f})", flush=True)
                for condition, preset, draws in rows(options, count):
                    row(pool, count, preset, condition, draws)
            if options.handedness:
                print("handedness over draws:")
                row(pool, options.images[0], "em", "clean", options.handedness)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
