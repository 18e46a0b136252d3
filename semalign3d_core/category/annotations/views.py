"""What the build keeps of one training image: keypoints, relative inverse depth and features at chosen pixels."""

import zlib
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from semalign3d_core.category.annotations.correction import depth_pixels, outline_distance, steps_inside
from semalign3d_core.category.config import ViewOptions
from semalign3d_core.datasets.records import ImageRecord
from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.geometry.image_grid import mirror_points
from semalign3d_core.geometry.mask_field import distance_field
from semalign3d_core.perception.backbones import FeatureBackbone
from semalign3d_core.perception.depth import DepthSource
from semalign3d_core.perception.evidence import FeatureMap, ImageInput, read_image
from semalign3d_core.perception.look import TYPICAL_FOCAL, features_and_mask
from semalign3d_core.perception.masks import MaskSource
from semalign3d_core.runtime.errors import InputError, MissingFileError
from semalign3d_core.runtime.threads import in_parallel

MINIMUM_MASK = 30  # pixels below which a mask counts as empty
NO_DEPTH = "none"  # the kind of a view without a depth map
MASK_NODES = 64  # of the mask's distance field along the longer side

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class View:
    """One training image (K keypoints, S sampled pixels, C channels).

    name; height, width: pixels; focal, principal: (2,) in units of L; focal_known: bool tensor
    keypoints:        (K, 2) pixels, NaN where not annotated (or rejected)
    corrected:        (K, 2) pixels where the depth of the keypoints was read: moved into the mask; NaN where not annotated
    keypoint_inverse: (K,) inverse depth there; NaN where unknown
    keypoint_inset:   (K,) distance in pixels from there to the outline of the mask
    middle_inverse:   (K,) inverse depth half-way between a keypoint and its mirror partner; NaN where unknown
    largest_inverse:  () largest inverse depth of the whole image
    inverse_range:    (2,) 5th and 95th percentile of the inverse depth over the mask
    box:              (4,) x1, y1, x2, y2 of the mask in pixels
    mask_offset:      (H, H, 2) float16 and mask_origin: (2,) of its distance field, see ``MaskShape``
    pixels, pixel_inverse: (S, 2), (S,): random object pixels away from edges
    keypoint_features, pixel_features: (K, C), (S, C) float16 unit; 0 where a keypoint is not annotated
    mirrored_keypoint_features, mirrored_pixel_features: of the mirror image at the same object points; (0, C) without
    kind:             metric, depth or disparity; none where nothing is known of the depth (inverse depths are NaN)
    """

    name: str
    height: int
    width: int
    kind: str
    focal: Tensor
    principal: Tensor
    focal_known: Tensor
    keypoints: Tensor
    corrected: Tensor
    keypoint_inverse: Tensor
    keypoint_inset: Tensor
    middle_inverse: Tensor
    inverse_range: Tensor
    largest_inverse: Tensor
    box: Tensor
    mask_offset: Tensor
    mask_origin: Tensor
    pixels: Tensor
    pixel_inverse: Tensor
    keypoint_features: Tensor
    pixel_features: Tensor
    mirrored_keypoint_features: Tensor
    mirrored_pixel_features: Tensor

    @property
    def longer_side(self) -> int:
        """L in pixels."""
        return max(self.height, self.width)

    @property
    def annotated(self) -> Tensor:
        """(K,) bool, where keypoints are annotated."""
        return ~torch.isnan(self.keypoints[:, 0])

    def relative_inverse(self, inverse: Tensor) -> Tensor:
        """Inverse depths (...) in units of the object's own range: 5th percentile over the mask 0, 95th 1; float64."""
        low, high = self.inverse_range
        return (inverse.double() - low) / (high - low)


@dataclass(frozen=True)
class Providers:
    """Where features, depth and masks of training images come from; see the packages of the three."""

    backbone: FeatureBackbone
    depth: DepthSource | None
    segmenter: MaskSource

    def over(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
        """Generator of ``function(item)`` in the order of the items, for a function that asks these providers.

        Several items at a time if all three say ``concurrent = True`` (they read files); a network gets all processors for itself.
        """
        if all(provider is None or provider.concurrent for provider in (self.backbone, self.depth, self.segmenter)):
            return in_parallel(function, items)
        return (function(item) for item in items)


def gather_view(record: ImageRecord, keypoints: Tensor, providers: Providers, options: ViewOptions, flip: Tensor | None = None) -> View:
    """The :class:`View` of one image.

    keypoints: (K, 2) checked annotation; flip: (K,) labels in the mirror image, or None for a category without symmetry, for which no
    features of mirror images are needed; a missing file of mirrored features only leaves them out.
    Raises :class:`InputError`, :class:`MissingFileError` or :class:`FileFormatError` that say what is wrong with the image.
    """
    image = read_image(record.path, record)
    if (image.height, image.width) != (record.height, record.width):
        raise InputError(
            f"{record.path} is {image.width} x {image.height} pixels, its annotation says {record.width} x {record.height}; "
            "correct one of them"
        )
    points = keypoints[~torch.isnan(keypoints[:, 0])]
    features, mask = features_and_mask(image, providers.backbone, providers.segmenter, record.box, points)  # type: ignore[arg-type]
    if mask is None or int(mask.sum()) < MINIMUM_MASK:
        raise InputError(f"{record.name}: the mask is empty; segment this image again or leave it out")
    depth = None if providers.depth is None else providers.depth.estimate(image)
    inverse = torch.full(mask.shape, torch.nan) if depth is None else depth.inverse()
    inverse_range = torch.tensor([0.0, 1.0], dtype=torch.float64) if depth is None else _object_range(record, inverse, mask)
    pixels = _sampled_pixels(record, mask, inverse, inverse_range, options)
    camera = record_camera(record)
    looked_at = replace(image, window=features.grid.window)
    mirrored_keypoints, mirrored_pixels = _mirrored_features(looked_at, keypoints, pixels, providers, flip is not None)
    corrected, keypoint_inverse, keypoint_inset = _keypoint_depths(keypoints, inverse, mask, options.margin)
    rows, columns = mask.nonzero().unbind(1)
    _, mask_offset, mask_origin = distance_field(mask.numpy(), MASK_NODES)
    return View(
        name=record.name,
        height=record.height,
        width=record.width,
        kind=NO_DEPTH if depth is None else depth.kind,
        focal=camera.focal,
        principal=camera.principal,
        focal_known=torch.tensor(camera.known),
        keypoints=keypoints,
        corrected=corrected,
        keypoint_inverse=keypoint_inverse,
        keypoint_inset=keypoint_inset,
        middle_inverse=_middle_inverse(keypoints, inverse, mask, flip),
        inverse_range=inverse_range,
        largest_inverse=inverse.nan_to_num(nan=0.0).max(),
        box=torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float(),
        mask_offset=torch.from_numpy(mask_offset).half(),
        mask_origin=torch.from_numpy(mask_origin),
        pixels=pixels,
        pixel_inverse=inverse[pixels[:, 1].long(), pixels[:, 0].long()],
        keypoint_features=_sampled(features, keypoints),
        pixel_features=features.sample(pixels).half(),
        mirrored_keypoint_features=mirrored_keypoints,
        mirrored_pixel_features=mirrored_pixels,
    )


def published_depth(view: View, inverse: Tensor) -> Tensor:
    """Depth z from inverse depths by the published formula, ``1 - 0.3 d / max(d)`` for disparity; NaN stays NaN."""
    return 1 - 0.3 * inverse / view.largest_inverse if view.kind == "disparity" else 1 / inverse


def record_camera(record: ImageRecord) -> PinholeCamera:
    """The image's camera: from the annotation's ``camera_matrix`` (3 x 3, pixels) if it has one, else assumed."""
    matrix = record.attributes.get("camera_matrix")
    if matrix is None:
        return PinholeCamera.centred(TYPICAL_FOCAL, record.height, record.width)
    try:
        values = np.asarray(matrix, dtype=np.float64).reshape(3, 3)
    except (TypeError, ValueError) as error:
        raise InputError(f"{record.name}: camera_matrix must be 3 x 3 numbers in pixels, found {matrix!r}") from error
    return PinholeCamera.from_pixels(values, record.height, record.width)


def _object_range(record: ImageRecord, inverse: Tensor, mask: Tensor) -> Tensor:
    values = inverse[mask]
    values = values[torch.isfinite(values)]
    if len(values) < 0.5 * int(mask.sum()):
        raise InputError(f"{record.name}: depth is unknown over more than half of the object; estimate it again or leave the image out")
    low, high = torch.quantile(values.double()[: 2**23], torch.tensor([0.05, 0.95], dtype=torch.float64))
    if not high - low > 1e-6 * max(abs(float(high)), 1e-12):
        raise InputError(f"{record.name}: depth is constant over the object; estimate it again or leave the image out")
    return torch.stack([low, high])


def _keypoint_depths(keypoints: Tensor, inverse: Tensor, mask: Tensor, margin: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where the depth of the keypoints is read (K, 2), the inverse depth there (K,), and the distance to the mask's outline (K,)."""
    corrected, result, inset = torch.full_like(keypoints, torch.nan), *torch.full((2, len(keypoints)), torch.nan)
    seen = ~torch.isnan(keypoints[:, 0])
    if seen.any():
        corrected[seen] = depth_pixels(mask, keypoints[seen].round(), margin)
        x, y = corrected[seen].long().unbind(1)
        result[seen], inset[seen] = inverse[y, x], outline_distance(mask)[y, x]
    return corrected, result, inset


def _middle_inverse(keypoints: Tensor, inverse: Tensor, mask: Tensor, flip: Tensor | None) -> Tensor:
    result = torch.full((len(keypoints),), torch.nan)
    if flip is not None:
        middle = (keypoints + keypoints[flip]) / 2
        seen = ~torch.isnan(middle[:, 0])
        x, y = middle[seen].round().long().clamp(min=0).unbind(1)
        x, y = x.clamp(max=mask.shape[1] - 1), y.clamp(max=mask.shape[0] - 1)
        result[seen] = torch.where(mask[y, x], inverse[y, x], torch.nan)
    return result


def _sampled_pixels(record: ImageRecord, mask: Tensor, inverse: Tensor, inverse_range: Tensor, options: ViewOptions) -> Tensor:
    """(S, 2) random object pixels, one inside the mask and off depth edges, as far as depth is known; the image's name seeds the choice."""
    usable = steps_inside(mask) > 1
    if torch.isfinite(inverse).any():
        window = torch.nn.functional.unfold(inverse[None, None].nan_to_num(nan=torch.inf), 3, padding=1).view(9, *mask.shape)
        smooth = window.amax(0) - window.amin(0) <= options.edge * float(inverse_range[1] - inverse_range[0])
        usable &= smooth & torch.isfinite(inverse)
    rows, columns = usable.nonzero().unbind(1)
    rng = np.random.default_rng(zlib.crc32(f"{record.category}/{record.name}".encode()))
    chosen = torch.from_numpy(np.sort(rng.permutation(len(rows))[: options.pixels]))
    return torch.stack([columns[chosen], rows[chosen]], dim=-1).float()


def _mirrored_features(image: ImageInput, keypoints: Tensor, pixels: Tensor, providers: Providers, mirror: bool) -> tuple[Tensor, Tensor]:
    """Features of the mirror image at the places where the object points went; labels are not exchanged here."""
    nothing = torch.zeros(0, providers.backbone.channels, dtype=torch.float16)
    if not mirror:
        return nothing, nothing
    try:
        features = providers.backbone.extract(image.mirror())
    except MissingFileError:
        return nothing, nothing
    return _sampled(features, mirror_points(keypoints, image.width)), features.sample(mirror_points(pixels, image.width)).half()


def _sampled(features: FeatureMap, keypoints: Tensor) -> Tensor:
    seen = ~torch.isnan(keypoints[:, :1])
    return (features.sample(keypoints.nan_to_num(nan=0.0)) * seen).half()
