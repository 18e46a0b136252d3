"""A small simulated category for tests: shapes made of boxes, left/right-folded features, a model with true statistics.

Nothing is rendered: surface samples carry canonical coordinates and are splatted on a feature grid and on the image.
Shapes have K keypoints, a few parameters of variation, and the mirror plane x = 0.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch.nn.functional import normalize

from semalign3d_core.category.model import BetaTable, CategoryModel
from semalign3d_core.category.statistics.geometric_features import edge_pair_features, triangle_vertex_features
from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.geometry.image_grid import SquareGrid
from semalign3d_core.geometry.rotations import rotation_from_vector, shape_diameter, similarity_alignment
from semalign3d_core.perception.backbones import FeatureBackbone
from semalign3d_core.perception.depth import DepthSource
from semalign3d_core.perception.evidence import DepthMap, FeatureMap, ImageEvidence
from semalign3d_core.perception.masks import MaskSource

SIZE, CELLS = 240, 60


def _box(centre, half):
    return np.array([centre, half], dtype=np.float64)


def chair(rng):
    """Boxes (part, centre/half, 3) of one chair; y down, z away from the viewer of a frontal view."""
    w, d, h = rng.uniform(0.38, 0.62), rng.uniform(0.38, 0.6), rng.uniform(0.35, 0.6)
    back, leg = rng.uniform(0.4, 0.75), rng.uniform(0.025, 0.05)
    legs = [_box((sx * (w - leg), h / 2, sz * (d - leg)), (leg, h / 2, leg)) for sx in (-1, 1) for sz in (-1, 1)]
    return np.stack([_box((0, 0, 0), (w, 0.05, d)), _box((0, -back / 2, d - 0.05), (w, back / 2, 0.05)), *legs])


def monitor(rng):
    """Boxes of one flat screen on a foot."""
    w, h, t = rng.uniform(0.6, 0.9), rng.uniform(0.35, 0.55), rng.uniform(0.04, 0.1)
    foot, stand = rng.uniform(0.2, 0.45), rng.uniform(0.1, 0.25)
    return np.stack(
        [
            _box((0, 0, 0), (w, h, t)),
            _box((0, h + stand / 2, 0), (0.06, stand / 2, 0.05)),
            _box((0, h + stand, 0), (foot, 0.03, foot * 0.6)),
        ]
    )


# Keypoints as (part, sign x, sign y, sign z) corners; partners under mirroring stand next to each other.
KEYPOINTS = {
    "chair": [
        (0, -1, -1, -1),
        (0, 1, -1, -1),
        (0, -1, -1, 1),
        (0, 1, -1, 1),
        (1, -1, -1, 1),
        (1, 1, -1, 1),
        (2, -1, 1, -1),
        (4, 1, 1, -1),
        (3, -1, 1, 1),
        (5, 1, 1, 1),
    ],
    "monitor": [
        (0, -1, -1, -1),
        (0, 1, -1, -1),
        (0, -1, 1, -1),
        (0, 1, 1, -1),
        (0, -1, -1, 1),
        (0, 1, -1, 1),
        (2, -1, 1, -1),
        (2, 1, 1, -1),
        (2, -1, 1, 1),
        (2, 1, 1, 1),
    ],
}
SHAPES = {"chair": chair, "monitor": monitor}


@dataclass
class SimulatedImage:
    """Evidence and truth of one image: keypoints (K, 2) pixels, visible (K,), rotation (3, 3) object to camera."""

    evidence: ImageEvidence
    keypoints: torch.Tensor
    visible: torch.Tensor
    rotation: torch.Tensor
    keypoints_3d: torch.Tensor


class SimulatedCategory:
    """Draws instances and images of one shape family, and makes its model."""

    def __init__(self, name="chair", channels=48, seed=0, folding=0.85, noise=0.6, samples=9000, front_only=False):
        self.name, self.folding, self.noise, self.front_only = name, folding, noise, front_only
        rng = np.random.default_rng(seed)
        self.flip = tuple(k ^ 1 for k in range(10))
        mean = np.mean([SHAPES[name](rng) for _ in range(200)], axis=0)
        area = np.array([[h[1] * h[2], h[0] * h[2], h[0] * h[1]] for h in mean[:, 1]])
        pick = rng.choice(area.size, samples, p=(area / area.sum()).ravel())
        self.part, axis = np.divmod(pick, 3)
        self.local = rng.uniform(-1, 1, (samples, 3))
        self.local[np.arange(samples), axis] = rng.choice([-1.0, 1.0], samples)
        self.normal_axis = axis
        self.frequency = rng.normal(0, 5.0, (channels, 3))
        self.phase = rng.uniform(0, 2 * np.pi, channels)
        self.common = rng.normal(0, 0.35, channels)
        self.mean_boxes = mean
        self.surface_features = self.field(self.place(mean))

    def place(self, boxes):
        return boxes[self.part, 0] + self.local * boxes[self.part, 1]

    def corners(self, boxes):
        return np.stack([boxes[p, 0] + np.array(s) * boxes[p, 1] for p, *s in KEYPOINTS[self.name]])

    def field(self, points):
        """Random Fourier features of canonical coordinates, mixed from folded (left = right) and plain ones."""
        folded = np.abs(points) * [1, 0, 0] + points * [0, 1, 1]
        same, own = (np.cos(p @ self.frequency.T + self.phase) for p in (folded, points))
        return self.folding * same + (1 - self.folding) * own + self.common

    def image(self, seed, truncated=0.0, size=(0.5, 0.85), noise=None, metric=None, view=None, crop=None):
        """A :class:`SimulatedImage`. truncated: shift in units of the image; metric: metres per unit of the shape;
        view: (azimuth, elevation, roll) in degrees instead of a random one; crop: (left, top, side), shares of the image."""
        rng = np.random.default_rng(10_000 + seed)
        boxes = SHAPES[self.name](rng)
        keypoints, surface = self.corners(boxes), self.place(boxes)
        limit = 65 if self.front_only or self.name == "monitor" else 180
        drawn = rng.uniform(-limit, limit), rng.uniform(-10, 45), rng.normal(0, 6)
        rotation = view_rotation(*(view or drawn))
        focal = rng.uniform(0.9, 2.3)
        extent = np.ptp(surface @ rotation.T, axis=0)[:2].max()
        share = rng.uniform(*size)
        distance = focal * extent / share
        shift = rng.uniform(-1, 1, 2) * (1 - share) * 0.4 + rng.choice([-1, 1]) * np.array([truncated, 0])
        centre = surface.mean(0)
        offset = np.array([shift[0] * distance / focal, shift[1] * distance / focal, distance])
        camera = PinholeCamera.centred(focal, SIZE, SIZE)
        if crop is not None:
            left, top, side = (round(value * SIZE) for value in crop)
            camera = camera.cropped(left, top, side, side).resized(SIZE, SIZE)
        scale = 1.0 if metric is None else metric

        def to_camera(points):
            return torch.tensor(((points - centre) @ rotation.T + offset) * scale, dtype=torch.float32)

        return self._splat(
            rng,
            camera,
            to_camera(surface),
            to_camera(keypoints),
            torch.tensor(rotation, dtype=torch.float32),
            self.noise if noise is None else noise,
            "metric" if metric else "disparity",
        )

    def _splat(self, rng, camera, surface, keypoints, rotation, noise, kind):
        pixels = camera.to_pixels(camera.project(surface)).numpy()
        z = surface[:, 2].numpy()
        depth = np.full((SIZE, SIZE), np.inf)
        column, row = np.round(pixels).astype(int).T
        inside = (column >= 0) & (column < SIZE) & (row >= 0) & (row < SIZE)
        np.minimum.at(depth, (row[inside], column[inside]), z[inside])
        depth = -cv2.dilate(-np.where(np.isinf(depth), 1e9, depth).astype(np.float32), np.ones((7, 7)))
        mask = cv2.erode((depth < 1e8).astype(np.uint8), np.ones((3, 3))) > 0
        front = np.zeros(len(z), bool)
        front[inside] = z[inside] < depth[row[inside], column[inside]] + 0.06 * z.mean()
        features = self._features(rng, pixels, z, front, noise)
        background = np.where(depth < 1e8, depth, 1.6 * z.mean())
        values = background if kind == "metric" else 1 / background
        features = FeatureMap(normalize(torch.tensor(features, dtype=torch.float32), dim=0), SquareGrid(SIZE, SIZE, CELLS))
        depth_map = DepthMap(torch.tensor(values, dtype=torch.float32), kind)
        evidence = ImageEvidence(features, camera, mask=torch.tensor(mask), depth=depth_map, name=self.name)
        points = camera.to_pixels(camera.project(keypoints))
        column, row = points.round().long().clamp(0, SIZE - 1).T
        ahead = keypoints[:, 2] < torch.tensor(depth)[row, column] + 0.08 * float(z.mean())
        visible = ((points >= 0) & (points < SIZE)).all(-1) & ahead
        return SimulatedImage(evidence, points, visible, rotation, keypoints)

    def _features(self, rng, pixels, z, front, noise):
        channels = len(self.phase)
        clutter = gaussian_filter(rng.normal(0, 1, (CELLS, CELLS, channels)), (2.5, 2.5, 0))
        clutter *= np.sqrt(0.5) / clutter.std()
        cell = np.clip(((pixels + 0.5) / (SIZE / CELLS)).astype(int), 0, CELLS - 1)
        total, count = np.zeros((CELLS, CELLS, channels)), np.zeros((CELLS, CELLS, 1))
        ok = front & (pixels >= 0).all(1) & (pixels < SIZE).all(1)
        np.add.at(total, (cell[ok, 1], cell[ok, 0]), self.surface_features[ok])
        np.add.at(count, (cell[ok, 1], cell[ok, 0]), 1)
        grid = np.where(count > 0, total / np.maximum(count, 1), clutter + self.common)
        grid = gaussian_filter(grid, (0.8, 0.8, 0))
        grid += rng.normal(0, 1, grid.shape) * noise * np.linalg.norm(grid, axis=-1, keepdims=True) / np.sqrt(channels)
        return grid.transpose(2, 0, 1)

    def model(self, images=40, dense=200, modes=20, betas=True):
        """The category model with true shape statistics and features seen in ``images`` simulated images."""
        rng = np.random.default_rng(77)
        shapes = [SHAPES[self.name](rng) for _ in range(80)]
        corners = torch.tensor(np.stack([self.corners(s) for s in shapes]))
        corners = corners - corners.mean(1, keepdim=True)
        mean = corners.mean(0)
        mean = (mean + torch.tensor([-1.0, 1, 1]) * mean[list(self.flip)]) / 2
        diameter = shape_diameter(mean)
        scale, rotation, translation = similarity_alignment(corners, mean.expand_as(corners))
        aligned = (scale[:, None, None] * corners @ rotation.transpose(1, 2) + translation[:, None]) / diameter
        mean = mean / diameter
        deviation = (aligned - mean).flatten(1)
        _, singular, basis = torch.linalg.svd(deviation, full_matrices=False)
        modes = min(modes, 15)
        surface = (torch.tensor(self.place(self.mean_boxes)) - torch.tensor(self.corners(self.mean_boxes)).mean(0)) / diameter
        chosen = farthest_points(surface, dense)
        weights = affine_weights(surface[chosen], mean)
        statistics = self._feature_statistics(chosen, surface, images)
        rotations = torch.stack([torch.tensor(view_rotation(*self._view(rng)), dtype=torch.float32) for _ in range(60)])
        return CategoryModel(
            category=self.name,
            keypoint_names=tuple(f"k{k}" for k in range(10)),
            flip_permutation=self.flip,
            backbone="simulated",
            present=torch.ones(10, dtype=torch.bool),
            shape=mean.float(),
            **statistics,
            weights=weights.float(),
            betas=moment_betas(aligned) if betas else empty_betas(),
            modes=basis[:modes].reshape(modes, 10, 3).float(),
            mode_variances=(singular[:modes] ** 2 / len(shapes)).clamp(min=1e-6).float(),
            pose_rotations=rotations,
            focal=torch.tensor([1.5, 0.35]),
            diameter_metres=torch.tensor([float("nan"), float("nan")]),
        )

    def _view(self, rng):
        limit = 65 if self.front_only or self.name == "monitor" else 180
        return rng.uniform(-limit, limit), rng.uniform(-10, 45), rng.normal(0, 6)

    def _feature_statistics(self, chosen, surface, images):
        """Mean features of dense points and keypoints with cosine statistics, from noisy copies of the field."""
        rng = np.random.default_rng(5)
        corner = (torch.tensor(self.corners(self.mean_boxes)) - torch.tensor(self.corners(self.mean_boxes)).mean(0)) / shape_diameter(
            torch.tensor(self.corners(self.mean_boxes))
        )
        nearest = torch.cdist(torch.cat([surface[chosen], corner]), surface).topk(25, largest=False).indices
        field = torch.tensor(self.surface_features)[nearest]
        seen = field[:, torch.tensor(rng.integers(0, 25, images))].clone()
        seen += torch.tensor(rng.normal(0, 1, seen.shape)) * self.noise * seen.norm(dim=-1, keepdim=True) / np.sqrt(seen.shape[-1])
        seen = normalize(seen, dim=-1)
        mean = normalize(seen.mean(1), dim=-1)
        cosine = (seen * mean[:, None]).sum(-1)
        mu, sd, count = cosine.mean(1).float(), cosine.std(1).float(), len(chosen)
        mean = mean.float()
        return {
            "dense_features": mean[:count],
            "dense_mu": mu[:count],
            "dense_sd": sd[:count],
            "keypoint_features": mean[count:],
            "keypoint_mu": mu[count:],
            "keypoint_sd": sd[count:],
        }


def view_rotation(azimuth, elevation, roll):
    """Object-to-camera rotation (3, 3) of a camera looking at the object; degrees."""
    a, e, r = np.radians([azimuth, elevation, roll])
    vectors = torch.tensor(np.array([[0, 0, r], [-e, 0, 0], [0, a, 0]]))
    matrices = rotation_from_vector(vectors)
    return (matrices[0] @ matrices[1] @ matrices[2]).numpy()


def farthest_points(points, count):
    chosen = [0]
    distance = torch.full((len(points),), float("inf"), dtype=points.dtype)
    for _ in range(count - 1):
        distance = torch.minimum(distance, (points - points[chosen[-1]]).norm(dim=-1))
        chosen.append(int(distance.argmax()))
    return torch.tensor(chosen)


def affine_weights(points, keypoints):
    """Locality-weighted minimum-norm affine weights (P, K): rows sum to one and reproduce the points exactly."""
    distance2 = torch.cdist(points, keypoints) ** 2 + 1e-3
    constraint = torch.cat([keypoints.T, torch.ones(1, len(keypoints), dtype=points.dtype)])
    target = torch.cat([points, torch.ones(len(points), 1, dtype=points.dtype)], 1)
    inverse = 1 / distance2
    gram = torch.einsum("ik,pk,jk->pij", constraint, inverse, constraint)
    return inverse * (torch.linalg.solve(gram, target[..., None])[..., 0] @ constraint)


def empty_betas():
    integer, real = torch.zeros(0, 2, dtype=torch.long), torch.zeros(0, 4)
    return BetaTable(integer, integer, real, torch.zeros(0, 3, dtype=torch.long), torch.zeros(0, dtype=torch.long), torch.zeros(0, 6))


def moment_betas(shapes, pairs=400, seed=0):
    """Betas by moments of a random subset of the edge pairs and tetrahedra of complete shapes (N, K, 3)."""
    rng = np.random.default_rng(seed)
    quads = torch.tensor(np.stack([rng.permutation(shapes.shape[1])[:4] for _ in range(pairs)]))
    noisy = shapes + 0.01 * torch.tensor(rng.normal(0, 1, shapes.shape))
    ratio, cosine = edge_pair_features(noisy, quads[:, :2], quads[:, 2:])
    tets = triangle_vertex_features(noisy, quads[:, :3], quads[:, 3])
    unit = [ratio, (cosine + 1) / 2, *((tets + 1) / 2).unbind(-1)]
    fitted = [beta_by_moments(u) for u in unit]
    edge_beta, tet_beta = torch.cat(fitted[:2], -1).float(), torch.cat(fitted[2:], -1).float()
    return BetaTable(quads[:, :2], quads[:, 2:], edge_beta, quads[:, :3], quads[:, 3], tet_beta)


def beta_by_moments(samples):
    mean, variance = samples.mean(0).clamp(0.02, 0.98), samples.var(0).clamp(min=1e-4)
    total = (mean * (1 - mean) / variance - 1).clamp(min=2.5)
    return torch.stack([mean * total, (1 - mean) * total], -1)


PICTURE = np.zeros((240, 240, 3), np.uint8)  # in place of what an image of this category shows


class OneImage(FeatureBackbone, MaskSource, DepthSource):
    """A backbone, mask source and depth source that knows one simulated image; counts how often it is asked for a mask or depth."""

    name, channels = "simulated", 48

    def __init__(self, truth):
        self.evidence, self.asked = truth.evidence, 0

    def extract(self, image):
        return self.evidence.features

    def segment(self, image, box=None, points=None):
        self.asked += 1
        return self.evidence.mask

    def estimate(self, image):
        self.asked += 1
        return self.evidence.depth
