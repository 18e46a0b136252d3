"""Small random categories with known truth for the tests of the build: shapes, poses, keypoints, disparity; no pictures."""

import math
from dataclasses import dataclass

import torch

from semalign3d_core.category.constellations import MIRROR, Constellations
from semalign3d_core.geometry import rotation_from_vector, shape_diameter


@dataclass(frozen=True)
class Truth:
    """shape (K, 3) mean of the instances' shapes; rotation (N, 3, 3); shapes (N, K, 3)."""

    shape: torch.Tensor
    rotation: torch.Tensor
    shapes: torch.Tensor


def random_category(images=40, keypoints=10, seed=0, frontal=False, depth="disparity"):
    """(:class:`Constellations`, :class:`Truth`) of a mirror-symmetric category with five deformation modes.

    frontal: azimuths within 40 degrees and no elevation, so that view diversity is missing.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    pairs = keypoints // 2 - 1
    side = torch.stack([0.15 + 0.3 * uniform(pairs), uniform(pairs) - 0.5, uniform(pairs) - 0.5], dim=1)
    middle = uniform(keypoints - 2 * pairs, 3) * torch.tensor([0.0, 1, 1]).double() - torch.tensor([0.0, 0.5, 0.5]).double()
    mean = torch.cat([side, side * MIRROR, middle])
    flip = torch.cat([torch.arange(pairs) + pairs, torch.arange(pairs), torch.arange(2 * pairs, keypoints)])
    mean = (mean - mean.mean(0)) / shape_diameter(mean)
    modes = normal(5, keypoints, 3)
    modes = (modes + modes[:, flip] * MIRROR) / 2
    modes = 0.03 * math.sqrt(keypoints) * modes / modes.flatten(1).norm(dim=1)[:, None, None]
    shapes = mean + torch.einsum("nm,mkd->nkd", normal(images, 5), modes) + 0.005 * normal(images, keypoints, 3)
    rotation = _views(images, frontal, uniform, normal)
    focal, size = 0.8 + 1.7 * uniform(images), 0.5 + 0.35 * uniform(images)
    distance = focal / size
    camera = shapes @ rotation.transpose(1, 2) + torch.stack([0 * distance, 0 * distance, distance], dim=1)[:, None]
    data = _constellations(camera, shapes, rotation, focal, flip, uniform, depth)
    return data, Truth(shapes.mean(0), rotation, shapes)


def _views(images, frontal, uniform, normal):
    azimuth = (uniform(images) - 0.5) * 2 * (math.radians(40) if frontal else math.pi)
    elevation = 0 * azimuth if frontal else math.radians(-10) + math.radians(60) * uniform(images)

    def about(axis, angle):
        vector = torch.zeros(images, 3, dtype=torch.float64)
        vector[:, axis] = angle
        return rotation_from_vector(vector)

    upright = torch.diag(torch.tensor([1.0, -1, -1], dtype=torch.float64))
    return about(2, 0.1 * normal(images)) @ about(0, elevation) @ upright @ about(1, azimuth)


def _constellations(camera, shapes, rotation, focal, flip, uniform, depth):
    images, keypoints = camera.shape[:2]
    points = focal[:, None, None] * camera[..., :2] / camera[..., 2:]
    toward = (shapes @ rotation.transpose(1, 2))[..., 2]
    visible = (toward < 0.12 + 0.25 * uniform(images, keypoints)) & (uniform(images, keypoints) > 0.1)
    visible |= toward <= toward.kthvalue(5, dim=1, keepdim=True).values
    inverse = 1 / camera[..., 2]
    low, high = inverse.amin(1, keepdim=True), inverse.amax(1, keepdim=True)
    unit = (inverse - low) / (high - low)
    nothing = torch.full((images,), torch.nan, dtype=torch.float64)
    return Constellations(
        points=points * visible[..., None],
        visible=visible,
        inverse=unit * visible,
        measured=visible,
        slope=nothing if depth == "disparity" else ((high - low) / low)[:, 0],
        size=(points.amax(1) - points.amin(1)).amax(1),
        focal=torch.full((images,), 1.5, dtype=torch.float64),
        flip=flip,
        depth=torch.where(visible, 1 - 0.3 * unit, 0.0),
        focal_known=torch.zeros(images, dtype=torch.bool),
    )
