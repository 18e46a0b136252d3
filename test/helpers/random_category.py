"""Small random categories with known truth for the tests of the build: shapes, poses, keypoints, disparity; no pictures."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from semalign3d_core.category.annotations.constellations import Constellations, MaskFields, Outline
from semalign3d_core.category.shape.mirror import MIRROR
from semalign3d_core.geometry.mask_field import distance_field
from semalign3d_core.geometry.rotations import rotation_from_vector, shape_diameter


def _data(points, **values):
    """:class:`Constellations` of keypoints whose depths were read where they are, and of which nothing else is known but ``values``."""
    unknown = {"corrected": points, "depth": torch.zeros_like(points[..., 0]), "outline": None, "masks": None}
    return Constellations(points=points, focal_known=torch.zeros(len(points), dtype=torch.bool), **unknown | values)


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
    return _data(
        points=points * visible[..., None],
        visible=visible,
        inverse=unit * visible,
        measured=visible,
        slope=nothing if depth == "disparity" else ((high - low) / low)[:, 0],
        size=(points.amax(1) - points.amin(1)).amax(1),
        focal=torch.full((images,), 1.5, dtype=torch.float64),
        flip=flip,
        depth=torch.where(visible, 1 - 0.3 * unit, 0.0),
    )


def outline_category(images=40, thickness=1.0, seed=0, noise=0.0):
    """(:class:`Constellations`, :class:`Truth`) of objects whose keypoints are the two sides of their outline, as a bottle's.

    The surface between the sides is an elliptic tube, ``thickness`` times as deep as wide; depth maps are rays cast at it, with ``noise``
    in units of the object's own range. All views come from the front, elevations -10 to 50 degrees.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    heights = torch.tensor([0.5, 0.3, 0.1, -0.2, -0.5]).double() + 0.04 * (uniform(images, 5) - 0.5)
    widths = torch.tensor([0.08, 0.09, 0.2, 0.22, 0.2]).double() * (0.7 + 0.6 * uniform(images, 1)) * (0.9 + 0.2 * uniform(images, 5))
    right = torch.stack([widths, heights, torch.zeros_like(widths)], dim=-1)
    shapes = torch.stack([right * MIRROR, right], dim=2).flatten(1, 2)
    shapes = shapes - shapes.mean(1, keepdim=True)
    shapes = shapes / shape_diameter(shapes)[:, None, None]
    tilt = torch.zeros(images, 3, dtype=torch.float64)
    tilt[:, 0] = torch.deg2rad(-10 + 60 * uniform(images))
    rotation = rotation_from_vector(tilt) @ torch.diag(torch.tensor([1.0, -1, -1]).double()).expand(images, 3, 3)
    focal = torch.full((images,), 1.5, dtype=torch.float64)
    distance = torch.stack([0 * focal, 0 * focal, focal / (0.5 + 0.3 * uniform(images))], dim=1)
    camera = shapes @ rotation.transpose(1, 2) + distance[:, None]
    points = 1.5 * camera[..., :2] / camera[..., 2:]
    flip = torch.tensor([1, 0, 3, 2, 5, 4, 7, 6, 9, 8])
    middle = (points + points[:, flip]) / 2
    inset = 0.008
    inward = torch.nn.functional.normalize(middle - points, dim=-1) * inset
    depth = torch.stack([_tube_depth(torch.cat([points + inward, middle], 1)[n] / 1.5, rotation[n], distance[n], shapes[n], thickness)
                         for n in range(images)])  # fmt: skip
    inverse = 1 / depth
    low, high = inverse.amin(1, keepdim=True), inverse.amax(1, keepdim=True)
    unit = (inverse - low) / (high - low).clamp(min=1e-9)
    unit = unit + noise * torch.randn(unit.shape, generator=generator, dtype=torch.float64)
    known = torch.ones(images, 10, dtype=torch.bool)
    data = _data(
        points=points,
        visible=known,
        inverse=unit[:, :10],
        measured=known,
        slope=torch.full((images,), torch.nan, dtype=torch.float64),
        size=(points.amax(1) - points.amin(1)).amax(1),
        focal=focal,
        flip=flip,
        outline=Outline(torch.full((images, 10), inset, dtype=torch.float64), unit[:, 10:], known),
    )
    mean = shapes.mean(0)
    return data, Truth(mean, rotation, shapes)


def _tube_depth(rays, rotation, translation, shape, thickness):
    """z (M,) where rays (x/z, y/z) (M, 2) first meet the tube through the sides ``shape`` (10, 3); of the sides' plane where they miss."""
    z = torch.linspace(translation[2] - 0.8, translation[2] + 0.8, 3200, dtype=torch.float64)
    points = torch.cat([rays, torch.ones_like(rays[:, :1])], 1)[:, None] * z[:, None]
    x, y, depth = ((points - translation) @ rotation).unbind(-1)
    levels, half = shape[1::2, 1].flip(0), shape[1::2, 0].flip(0)  # from below
    after = torch.searchsorted(levels, y.contiguous()).clamp(1, 4)
    share = ((y - levels[after - 1]) / (levels[after] - levels[after - 1])).clamp(0, 1)
    width = half[after - 1] + share * (half[after] - half[after - 1])
    step = z[1] - z[0]
    inside = ((x / width) ** 2 + (depth / (thickness * width).clamp(min=step)) ** 2 <= 1) & (y > levels[0] - 0.01) & (y < levels[-1] + 0.01)
    first = torch.where(inside, z, torch.inf).amin(1)
    normal = rotation[:, 2]
    plane = (normal @ translation) / (torch.cat([rays, torch.ones_like(rays[:, :1])], 1) @ normal)
    return torch.where(torch.isfinite(first), first, plane)


def box_category(images=60, seed=0):
    """(:class:`Constellations`, :class:`Truth`) of boxes as televisions are, with the masks of their pictures.

    Ten keypoints: four front and four rear corners, two ends of a stand that a fifth of the objects lacks. The depth varies from
    nearly none to half the width; most views come from the front, where a rear corner is seen only beside the front of a deep box.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    depth, height = 0.05 + 0.45 * uniform(images), 0.3 + 0.05 * uniform(images)
    low = -height - 0.15 - 0.05 * uniform(images)
    zero, half = torch.zeros(images, dtype=torch.float64), torch.full((images,), 0.5, dtype=torch.float64)
    right = [(half, height, zero), (half, -height, zero), (0.6 * half, 0.6 * height, -depth), (0.6 * half, -0.6 * height, -depth)]
    right = torch.stack([torch.stack(point, dim=-1) for point in (*right, (0.5 * half, low, zero))], dim=1)
    shapes = torch.stack([right * MIRROR, right], dim=2).flatten(1, 2)
    flip = torch.tensor([1, 0, 3, 2, 5, 4, 7, 6, 9, 8])
    mean = shapes.mean(0)
    shapes, mean = (shapes - mean.mean(0)) / shape_diameter(mean), (mean - mean.mean(0)) / shape_diameter(mean)
    azimuth = math.radians(65) * (2 * uniform(images) - 1)
    azimuth[: images // 10] += math.pi
    turn = torch.zeros(2, images, 3, dtype=torch.float64)
    turn[0, :, 0], turn[1, :, 1] = math.radians(20) * uniform(images), azimuth
    upright = torch.diag(torch.tensor([1.0, -1, -1], dtype=torch.float64))
    rotation = rotation_from_vector(turn[0]) @ upright @ rotation_from_vector(turn[1])
    distance = 1.5 / (0.6 + 0.2 * uniform(images))
    camera = shapes @ rotation.transpose(1, 2) + torch.stack([zero, zero, distance], dim=1)[:, None]
    points = 1.5 * camera[..., :2] / camera[..., 2:]
    stand = uniform(images) > 0.2
    front = rotation[:, 2, 2] < 0
    visible, fields = torch.ones(images, 10, dtype=torch.bool), []
    visible[:, 8:] = stand[:, None]
    for n in range(images):
        panel, all_of_it = _filled(points[n, :4]), _filled(points[n, :8]) | (_filled(points[n, [2, 3, 8, 9]]) & bool(stand[n]))
        pixel = (256 * (points[n, 4:8] + 0.5)).round().long()
        if front[n]:
            visible[n, 4:8] = ~torch.from_numpy(panel)[pixel[:, 1], pixel[:, 0]]
        fields.append(distance_field(all_of_it, 64))
    origin = torch.from_numpy(fields[0][2]).double().expand(images, 2) - 0.5
    inverse = 1 / camera[..., 2]
    first, last = inverse.amin(1, keepdim=True), inverse.amax(1, keepdim=True)
    data = _data(
        points=points * visible[..., None],
        visible=visible,
        inverse=(inverse - first) / (last - first) * visible,
        measured=visible,
        slope=torch.full((images,), torch.nan, dtype=torch.float64),
        size=(points.amax(1) - points.amin(1)).amax(1),
        focal=torch.full((images,), 1.5, dtype=torch.float64),
        flip=flip,
        masks=MaskFields(torch.stack([torch.from_numpy(f[1]) for f in fields]), origin, torch.full((images, 2), 1 / 64).double()),
    )
    return data, Truth(mean, rotation, shapes)


def _filled(points):
    """(256, 256) bool: the convex hull of image points (P, 2)."""
    hull = cv2.convexHull((256 * (points.numpy() + 0.5)).round().astype(np.int32))
    return cv2.fillConvexPoly(np.zeros((256, 256), np.uint8), hull, 1).astype(bool)
