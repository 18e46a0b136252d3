"""How good the shapes are that the build finds: both presets side by side on the synthetic categories, against the truth.

    python bench/build_quality.py [--dataset DIR] [--images 55 25 15 10] [--draws 3] [--handedness 20]

Only annotated keypoints, masks and disparity are used. Each draw is a random subset of a pool of training images.
Columns: X0 = RMS of the mean keypoints against the true mean shape after similarity alignment, % of its diameter;
hand = draws with correct handedness; pose = median rotation error of the training images, degrees;
cloud = median distance of the dense cloud to the surface of the category's template, % of its diameter.
Conditions: clean, and degraded (keypoints off by 2 % of the box, disparity noise 15 % of the object's range, disparity
bent by a random power with sd 0.5 in the log).
"""

import logging
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from scipy.spatial import cKDTree

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from semalign3d_core import depth, masks
from semalign3d_core.category.annotations import Problems, checked_keypoints, present_keypoints, trust_ratio, usable_flip
from semalign3d_core.category.builder import constellations, find_shape
from semalign3d_core.category.config import BuildConfig
from semalign3d_core.category.dense_cloud import merged_samples, supported_clusters, with_mirror_images
from semalign3d_core.category.surface_map import surface_map
from semalign3d_core.category.views import Providers, ViewOptions, gather_view
from semalign3d_core.config import load_preset
from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.datasets.synthetic import instances
from semalign3d_core.errors import SemAlign3DError
from semalign3d_core.evidence import FeatureMap
from semalign3d_core.geometry import rotation_angle, similarity_alignment
from semalign3d_core.image_grid import SquareGrid


@dataclass
class Options:
    dataset: Path | None = None
    """Folder written by 'semalign3d synth' (its training images are the pool); nothing renders one for this run."""
    pool: int = 110
    """Images per category in a pool that is rendered here."""
    categories: tuple[str, ...] = tuple(instances.CATEGORIES)
    """Categories to build."""
    images: tuple[int, ...] = (55, 25, 15, 10)
    """Numbers of training images."""
    draws: int = 3
    """Random draws per number of images."""
    handedness: int = 20
    """Draws of the first number of images (clean, em) for the handedness test."""
    presets: tuple[str, ...] = ("em", "reference")
    """Presets to compare."""


class NoFeatures:
    """A backbone for builds whose features nobody looks at."""

    name, channels = "none", 1

    def extract(self, image):
        return FeatureMap(torch.ones(1, 2, 2), SquareGrid(image.height, image.width, 2))


@dataclass(frozen=True)
class Pool:
    """All images of one category: views, true rotations (N, 3, 3), names and flip permutation of its keypoints."""

    category: str
    spec: object
    views: list
    rotations: torch.Tensor


def load_pool(root, category):
    dataset = FolderDataset(root)
    spec = dataset.keypoint_spec(category)
    providers = Providers(NoFeatures(), depth.create("precomputed", root), masks.create("precomputed", root))
    views, rotations = [], []
    for record in dataset.images(category):
        keypoints, _ = checked_keypoints(record, spec.names)
        if not record.name.startswith("trn") or int((~torch.isnan(keypoints[:, 0])).sum()) < 4:
            continue
        try:
            views.append(gather_view(record, keypoints, providers, ViewOptions(), usable_flip(spec.flip_permutation)))
        except SemAlign3DError as error:
            print(f"left out: {error}")
            continue
        with np.load(root / "Truth" / category / f"{record.name}.npz") as truth:
            rotations.append(torch.from_numpy(truth["R"]).double())
    return Pool(category, spec, views, torch.stack(rotations))


def degraded(view, seed):
    """The view with noisy keypoints and noisy, bent disparity."""
    rng = torch.Generator().manual_seed(seed)
    size = float((view.box[2:] - view.box[:2]).max())
    keypoints = view.keypoints + 0.02 * size * torch.randn(view.keypoints.shape, generator=rng)
    low, high = view.inverse_range.tolist()
    power = float(torch.exp(0.5 * torch.randn(1, generator=rng)))

    def worse(inverse, noise):
        unit = (inverse.double() - low) / (high - low)
        bent = unit.sign() * unit.abs() ** power
        return (low + (high - low) * (bent + noise * torch.randn(bent.shape, generator=rng))).to(inverse.dtype)

    noisy = {name: worse(getattr(view, name), 0.15) for name in ("keypoint_inverse", "pixel_inverse", "middle_inverse")}
    return replace(view, keypoints=keypoints, **noisy)


def build(pool, chosen, config, condition):
    """(measures, warned, start) of one build: measures = X0 error, right hand, pose error, cloud distance."""
    views = [pool.views[n] for n in chosen]
    if condition == "degraded":
        views = [degraded(view, int(n)) for view, n in zip(views, chosen, strict=True)]
    flip = usable_flip(pool.spec.flip_permutation)
    keypoints = torch.stack([v.keypoints for v in views])
    present = present_keypoints(keypoints, pool.spec.names, flip, config.policy, Problems.none())
    labels = present.nonzero()[:, 0]
    data = constellations(views, labels, flip)
    result = find_shape(data, config)
    warned = trust_ratio(int(data.visible.sum()), len(views), data.count) < config.policy.trust_ratio
    errors = shape_errors(result.model, pool, chosen, labels)
    cloud = cloud_error(result.model, pool, views, result.data, labels, config)
    return (*errors, cloud), warned, result.report["start"]


def shape_errors(model, pool, chosen, labels):
    truth = torch.from_numpy(instances.mean_shape(pool.category)).double()[labels]
    diameter = torch.cdist(truth, truth).max()
    errors, turn = [], None
    for shape in (model.shape, model.shape * torch.tensor([-1.0, 1.0, 1.0])):
        scale, rotation, shift = similarity_alignment(shape, truth)
        errors.append(float((scale * shape @ rotation.T + shift - truth).square().sum(-1).mean().sqrt() / diameter))
        turn = rotation if turn is None else turn
    angle = rotation_angle(model.rotation, pool.rotations[chosen] @ turn)
    return 100 * errors[0], errors[0] < errors[1], float(torch.rad2deg(angle).median())


def cloud_error(model, pool, views, data, labels, config):
    samples = with_mirror_images(merged_samples(views, model, data, config.dense), views)
    centres, _ = supported_clusters(samples, config.dense, config.seed)
    template = instances.template(pool.category)
    keypoints = torch.from_numpy(template.complete_keypoints).double()[labels]
    carried = surface_map(centres, model.shape, model.plane) @ keypoints
    surface = surface_points(template.vertices, template.faces)
    return 100 * float(np.median(cKDTree(surface).query(carried.numpy())[0]) / torch.cdist(keypoints, keypoints).max())


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
    return np.sort(np.random.default_rng([seed, count]).permutation(len(pool.views))[:count])


def row(pool, count, preset, condition, draws, config):
    """Prints one line: means over the draws."""
    results, failures, warned, starts = [], 0, 0, set()
    began = time.process_time()
    for seed in range(draws):
        try:
            measures, few, start = build(pool, draw(pool, count, seed), replace(config, seed=seed), condition)
        except SemAlign3DError:
            failures += 1
            continue
        results.append(measures)
        warned += few
        starts.add(start)
    seconds = (time.process_time() - began) / draws
    name = f"{pool.category:11s} {count:3d} {condition:9s} {preset:10s}"
    if not results:
        print(f"{name} refused {failures} of {draws}", flush=True)
        return None
    x0, hand, pose, cloud = (np.array(column, dtype=float) for column in zip(*results, strict=True))
    print(
        f"{name} X0 {x0.mean():5.2f} (worst {x0.max():5.2f})  hand {int(hand.sum())}/{len(hand)}  pose {pose.mean():5.1f}  "
        f"cloud {cloud.mean():5.2f}  warned {warned}  refused {failures}  {'/'.join(sorted(starts))}  {seconds:.1f} s",
        flush=True,
    )
    return x0.mean(), hand.sum(), len(hand), pose.mean(), cloud.mean()


def rendered(options, folder):
    from semalign3d_core.datasets.synthetic.writer import WriterConfig, write_data_set

    write_data_set(folder, options.categories, {"trn": options.pool}, 0, WriterConfig(), workers=2)
    return folder


def main(options):
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        root = options.dataset or rendered(options, Path(temporary))
        for category in options.categories:
            pool = load_pool(root, category)
            print(f"\n{category}: pool of {len(pool.views)} images, {len(pool.spec.names)} keypoints")
            for condition in ("clean", "degraded"):
                for count in options.images:
                    for preset in options.presets:
                        row(pool, count, preset, condition, options.draws, load_preset(BuildConfig, "build", preset))
            if options.handedness:
                print("handedness over draws:")
                row(pool, options.images[0], "em", "clean", options.handedness, load_preset(BuildConfig, "build", "em"))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
