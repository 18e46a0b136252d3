"""What was seen in one image: features, depth, mask, camera."""

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.geometry.image_grid import SquareGrid, mirror_image, mirror_square
from semalign3d_core.geometry.mask_field import mask_box, square_around, well_framed
from semalign3d_core.runtime.errors import InputError

DEPTH_KINDS = ("metric", "depth", "disparity")


@dataclass(frozen=True)
class ImageInput:
    """An image on its way to the providers.

    rgb:      (h, w, 3) uint8
    name:     what messages call it (a path, a topic)
    record:   the data-set record it belongs to, for providers that read precomputed sidecars; else None
    mirrored: True if ``rgb`` is the mirror image of the record's file
    window:   (left, top, side) in whole pixels, the square that features are wanted of instead of the whole image: see :func:`close_up`
    """

    rgb: np.ndarray
    name: str = "image"
    record: object = None
    mirrored: bool = False
    window: tuple | None = None

    def __post_init__(self):
        if self.rgb.ndim != 3 or self.rgb.shape[2] != 3 or self.rgb.dtype != np.uint8 or 0 in self.rgb.shape:
            raise InputError(f"{self.name}: expected a non-empty (h, w, 3) uint8 image, got {self.rgb.dtype} {self.rgb.shape}")

    @property
    def height(self):
        return self.rgb.shape[0]

    @property
    def width(self):
        return self.rgb.shape[1]

    def mirror(self):
        """The mirror image of the same record."""
        window = None if self.window is None else mirror_square(self.window, self.width)
        return replace(self, rgb=np.ascontiguousarray(self.rgb[:, ::-1]), mirrored=not self.mirrored, window=window)


@dataclass(frozen=True)
class DepthMap:
    """A depth map and what its numbers mean.

    values: (h, w) float32; NaN where unknown (sensor holes)
    kind:   ``metric`` (metres), ``depth`` (up to scale) or ``disparity`` (relative inverse depth; nearer is larger)
    """

    values: torch.Tensor
    kind: str

    def __post_init__(self):
        if self.kind not in DEPTH_KINDS:
            raise InputError(f"unknown depth kind {self.kind!r}: choose one of {', '.join(DEPTH_KINDS)}")
        if self.values.ndim != 2:
            raise InputError(f"depth map must be (h, w), got shape {tuple(self.values.shape)}")

    def z(self):
        """Depth along the optical axis, (h, w): disparity ``d`` becomes ``1 - 0.3 d / max(d)`` (method, section 0)."""
        if self.kind != "disparity":
            return self.values
        largest = self.values.nan_to_num(nan=0.0).max().clamp(min=1e-12)
        return 1 - 0.3 * self.values / largest

    def inverse(self):
        """Relative inverse depth, (h, w): nearer is larger; NaN where unknown or not positive."""
        if self.kind == "disparity":
            return self.values
        return torch.where(self.values > 0, 1 / self.values, torch.nan)

    def inverse_at(self, pixels):
        """:meth:`inverse` at the nearest of pixels (..., 2), without making the whole map; NaN outside the picture."""
        height, width = self.values.shape
        column, row = pixels.round().unbind(-1)
        inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
        index = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
        read = DepthMap(self.values.reshape(1, -1).index_select(1, index.reshape(-1)), self.kind).inverse().reshape(index.shape)
        return torch.where(inside, read, torch.nan)

    def mirror(self):
        return DepthMap(mirror_image(self.values), self.kind)


@dataclass(frozen=True)
class FeatureMap:
    """A feature map and how it sits on its image.

    values: (C, cells, cells) float32, unit norm along C
    grid:   the :class:`SquareGrid` of the image it belongs to
    """

    values: torch.Tensor
    grid: SquareGrid

    def sample(self, pixels):
        """Features (..., C) at pixels (..., 2), bilinear, renormalised."""
        return torch.nn.functional.normalize(self.grid.sample(self.values, pixels), dim=-1)

    def of_cells(self, rows, columns):
        """Features (Q, C) of the cells in ``rows`` and ``columns`` (Q,) int64."""
        return self.values[:, rows, columns].T

    def similarity(self, features):
        """Inner products (Q, cells * cells), row-major, of ``features`` (Q, C) with all cells."""
        return features @ self.values.flatten(1)


@dataclass(frozen=True)
class ImageEvidence:
    """Everything the alignment knows of one image.

    features: :class:`FeatureMap`
    mask:     (h, w) bool of the object, or None when nothing is known
    depth:    :class:`DepthMap` or None
    camera:   :class:`PinholeCamera`; ``camera.known`` says whether its focal length is measured
    image:    (h, w, 3) uint8 for pictures, or None
    name:     what messages call the image
    """

    features: FeatureMap
    camera: PinholeCamera
    mask: torch.Tensor | None = None
    depth: DepthMap | None = None
    image: np.ndarray | None = field(default=None, repr=False)
    name: str = "image"

    def __post_init__(self):
        size = (self.camera.height, self.camera.width)
        for what, shape in (
            ("features", (self.features.grid.height, self.features.grid.width)),
            ("mask", None if self.mask is None else tuple(self.mask.shape)),
            ("depth", None if self.depth is None else tuple(self.depth.values.shape)),
        ):
            if shape is not None and shape != size:
                raise InputError(f"{self.name}: {what} belongs to {shape[1]} x {shape[0]} pixels, the camera to {size[1]} x {size[0]}")


def close_up(image, mask, backbone):
    """The :class:`ImageInput` that a backbone shall extract features of where the object's ``mask`` is known ((h, w) bool, or None).

    For a backbone with a ``close_up`` (the margin around the object, in object sizes) it is the surroundings of the object, which then
    fills the feature grid whatever its size in the image; for others, and without a mask, the image itself.
    """
    margin = getattr(backbone, "close_up", None)
    if margin is None or mask is None or not mask.any():
        return image
    return replace(image, window=square_around(mask_box(mask.cpu().numpy()), margin))


def gather(image, backbone, depth=None, segmenter=None, camera=None, box=None, mask=None, near=None):
    """Asks the providers for everything they know of ``image`` and returns its :class:`ImageEvidence`.

    image: :class:`ImageInput`; backbone, depth, segmenter: providers (see their packages), the last two may be None;
    camera: a measured :class:`PinholeCamera`, or None; box: (x1, y1, x2, y2) in pixels, a prompt for the segmenter; mask: (h, w) bool, the
    object's if it is known, which then nobody is asked for; an empty one says as much as none; near: (x0, y0, x1, y1) in pixels, the box
    of the object's mask in the frame before, where it is looked for first.
    """
    if mask is not None:
        mask = mask if mask.any() else None
        features = backbone.extract(close_up(image, mask, backbone))
    else:
        features, mask = features_and_mask(image, backbone, segmenter, box=box, near=near)
    return ImageEvidence(
        features=features,
        camera=camera or PinholeCamera.centred(1.5, image.height, image.width),
        mask=mask,
        depth=None if depth is None else depth.estimate(image),
        image=image.rgb,
        name=image.name,
    )


def features_and_mask(image, backbone, segmenter, box=None, points=None, near=None):
    """The :class:`FeatureMap` of an :class:`ImageInput`, of the object's surroundings where ``backbone`` wants that, and its mask or None.

    segmenter: mask provider or None; box, points: prompts for it; near: see :func:`gather`.
    """
    prompts = {"box": box, "points": points}
    if getattr(segmenter, "glance", None) and getattr(backbone, "close_up", None) is not None:
        return _from_two_looks(image, backbone, segmenter, prompts, near)
    if not hasattr(segmenter, "segment_features"):
        mask = None if segmenter is None else segmenter.segment(image, **prompts)
        return backbone.extract(close_up(image, mask, backbone)), mask
    features = backbone.extract(image)  # which such a segmenter looks at: they need not be extracted twice
    mask = segmenter.segment_features(features, image, **prompts)
    seen = close_up(image, mask, backbone)
    return features if seen is image else backbone.extract(seen), mask


def _from_two_looks(image, backbone, segmenter, prompts, near):
    """:func:`features_and_mask` of an object that is looked at closely where a glance shows it, or at once where it was before."""
    if near is not None:
        seen = replace(image, window=square_around(near, backbone.close_up))
        features = backbone.extract(seen)
        mask = segmenter.segment_features(features, seen, **prompts)
        if mask is not None and well_framed(mask_box(mask.cpu().numpy()), seen.window, image.height, image.width):
            return features, mask
    glimpsed = segmenter.glance(image, box=prompts["box"])
    seen = close_up(image, glimpsed, backbone)
    features = backbone.extract(seen)
    mask = segmenter.segment_features(features, seen, **prompts)
    return features, glimpsed if mask is None else mask
