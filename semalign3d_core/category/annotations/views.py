"""What the build keeps of one training image: keypoints, relative inverse depth and features at chosen pixels."""

import zlib
from dataclasses import dataclass, replace

import numpy as np
import torch

from semalign3d_core.category.annotations.correction import depth_pixels, outline_distance, steps_inside
from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.geometry.image_grid import mirror_points
from semalign3d_core.geometry.mask_field import distance_field
from semalign3d_core.perception.images import read_image
from semalign3d_core.perception.look import features_and_mask
from semalign3d_core.runtime.errors import InputError, MissingFileError
from semalign3d_core.runtime.threads import in_parallel


@dataclass(frozen=True)
class ViewOptions:
    """pixels: sampled per image for the dense cloud; assumed_focal: in units of L where no intrinsics are known;
    margin: pixels inside the mask at which keypoint depths are read (0: the published correction);
    edge: local range of the inverse depth, in units of the object's own, above which a pixel lies on a depth edge;
    minimum_mask: pixels below which a mask counts as empty; mask_nodes: of its distance field along the longer side."""

    pixels: int = 600
    assumed_focal: float = 1.5
    margin: int = 3
    edge: float = 0.25
    minimum_mask: int = 30
    mask_nodes: int = 64


@dataclass(frozen=True)
class View:
    """One training image (K keypoints, S sampled pixels, C channels).

    name; height, width: pixels; focal, principal: (2,) in units of L; focal_known: bool tensor
    keypoints:        (K, 2) pixels, NaN where not annotated (or rejected)
    keypoint_inverse: (K,) inverse depth at the keypoints, moved into the mask; NaN where unknown
    keypoint_inset:   (K,) distance in pixels from where it was read to the outline of the mask
    middle_inverse:   (K,) inverse depth half-way between a keypoint and its mirror partner; NaN where unknown
    picture_maximum:  () largest inverse depth of the whole picture
    inverse_range:    (2,) 5th and 95th percentile of the inverse depth over the mask
    box:              (4,) x1, y1, x2, y2 of the mask in pixels
    mask_offset:      (H, H, 2) float16 and mask_origin: (2,) of its distance field, see :class:`MaskShape`
    pixels, pixel_inverse: (S, 2), (S,): random object pixels away from edges
    keypoint_features, pixel_features: (K, C), (S, C) float16 unit; 0 where a keypoint is not annotated
    mirrored_keypoint_features, mirrored_pixel_features: of the mirror image at the same object points; (0, C) without
    kind:             metric, depth or disparity
    """

    name: str
    height: int
    width: int
    kind: str
    focal: torch.Tensor
    principal: torch.Tensor
    focal_known: torch.Tensor
    keypoints: torch.Tensor
    keypoint_inverse: torch.Tensor
    keypoint_inset: torch.Tensor
    middle_inverse: torch.Tensor
    inverse_range: torch.Tensor
    picture_maximum: torch.Tensor
    box: torch.Tensor
    mask_offset: torch.Tensor
    mask_origin: torch.Tensor
    pixels: torch.Tensor
    pixel_inverse: torch.Tensor
    keypoint_features: torch.Tensor
    pixel_features: torch.Tensor
    mirrored_keypoint_features: torch.Tensor
    mirrored_pixel_features: torch.Tensor


@dataclass(frozen=True)
class Providers:
    """Where features, depth and masks of training images come from; see the packages of the three."""

    backbone: object
    depth: object
    segmenter: object

    def over(self, function, items):
        """Generator of ``function(item)`` in the order of the items, where the function asks these providers.

        Several items at a time if all three may be asked by several threads, as those may that read files and say ``concurrent = True``;
        a network gets all processors for itself.
        """
        if all(getattr(provider, "concurrent", False) for provider in (self.backbone, self.depth, self.segmenter)):
            return in_parallel(function, items)
        return (function(item) for item in items)


def gather_view(record, keypoints, providers, options, flip=None, load_image=read_image):
    """The :class:`View` of one image. Raises :class:`InputError` (or a kin) that says what is wrong with it.

    record: :class:`ImageRecord`; keypoints: (K, 2) checked annotation; flip: (K,) labels in the mirror image, or None for a category
    without symmetry, for which no features of mirror images are wanted; a missing file of mirrored features only leaves them out.
    """
    image = load_image(record.path, record)
    if (image.height, image.width) != (record.height, record.width):
        raise InputError(
            f"{record.path} is {image.width} x {image.height} pixels, its annotation says {record.width} x {record.height}; "
            "correct one of them"
        )
    prompts = {"box": record.box, "points": keypoints[~torch.isnan(keypoints[:, 0])]}
    features, mask = features_and_mask(image, providers.backbone, providers.segmenter, **prompts)
    if mask is None or int(mask.sum()) < options.minimum_mask:
        raise InputError(f"{record.name}: the mask is empty; segment this image again or leave it out")
    depth = providers.depth.estimate(image)
    inverse = depth.inverse()
    inverse_range = _object_range(record, inverse, mask)
    pixels = _sampled_pixels(record, mask, inverse, inverse_range, options)
    camera = record_camera(record, options.assumed_focal)
    looked_at = replace(image, window=features.grid.window)
    mirrored_keypoints, mirrored_pixels = _mirrored_features(looked_at, keypoints, pixels, providers, flip is not None)
    keypoint_inverse, keypoint_inset = _keypoint_inverse(keypoints, inverse, mask, options.margin)
    rows, columns = mask.nonzero().unbind(1)
    _, mask_offset, mask_origin = distance_field(mask.numpy(), options.mask_nodes)
    return View(
        name=record.name,
        height=record.height,
        width=record.width,
        kind=depth.kind,
        focal=camera.focal,
        principal=camera.principal,
        focal_known=torch.tensor(camera.known),
        keypoints=keypoints,
        keypoint_inverse=keypoint_inverse,
        keypoint_inset=keypoint_inset,
        middle_inverse=_middle_inverse(keypoints, inverse, mask, flip),
        inverse_range=inverse_range,
        picture_maximum=inverse.nan_to_num(nan=0.0).max(),
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


def published_depth(view, inverse):
    """z from inverse depths by the published formula, ``1 - 0.3 d / max(d)`` for disparity; NaN stays NaN."""
    return 1 - 0.3 * inverse / view.picture_maximum if view.kind == "disparity" else 1 / inverse


def record_camera(record, assumed_focal):
    """The image's :class:`PinholeCamera`: from the annotation's ``camera_matrix`` (3 x 3, pixels) if it has one, else assumed."""
    matrix = record.attributes.get("camera_matrix")
    if matrix is None:
        return PinholeCamera.centred(assumed_focal, record.height, record.width)
    try:
        values = np.asarray(matrix, dtype=np.float64).reshape(3, 3)
    except (TypeError, ValueError) as error:
        raise InputError(f"{record.name}: camera_matrix must be 3 x 3 numbers in pixels, found {matrix!r}") from error
    return PinholeCamera.from_pixels(values, record.height, record.width)


def _object_range(record, inverse, mask):
    values = inverse[mask]
    values = values[torch.isfinite(values)]
    if len(values) < 0.5 * int(mask.sum()):
        raise InputError(f"{record.name}: depth is unknown over more than half of the object; estimate it again or leave the image out")
    low, high = torch.quantile(values.double()[: 2**23], torch.tensor([0.05, 0.95], dtype=torch.float64))
    if not high - low > 1e-6 * max(abs(float(high)), 1e-12):
        raise InputError(f"{record.name}: depth is constant over the object; estimate it again or leave the image out")
    return torch.stack([low, high])


def _keypoint_inverse(keypoints, inverse, mask, margin):
    result, inset = torch.full((2, len(keypoints)), torch.nan)
    seen = ~torch.isnan(keypoints[:, 0])
    if seen.any():
        x, y = depth_pixels(mask, keypoints[seen].round(), margin).long().unbind(1)
        result[seen], inset[seen] = inverse[y, x], outline_distance(mask)[y, x]
    return result, inset


def _middle_inverse(keypoints, inverse, mask, flip):
    result = torch.full((len(keypoints),), torch.nan)
    if flip is not None:
        middle = (keypoints + keypoints[flip]) / 2
        seen = ~torch.isnan(middle[:, 0])
        x, y = middle[seen].round().long().clamp(min=0).unbind(1)
        x, y = x.clamp(max=mask.shape[1] - 1), y.clamp(max=mask.shape[0] - 1)
        result[seen] = torch.where(mask[y, x], inverse[y, x], torch.nan)
    return result


def _sampled_pixels(record, mask, inverse, inverse_range, options):
    """(S, 2) random object pixels, one pixel inside the mask and off depth edges; the image's name seeds the choice."""
    window = torch.nn.functional.unfold(inverse[None, None].nan_to_num(nan=torch.inf), 3, padding=1).view(9, *mask.shape)
    smooth = window.amax(0) - window.amin(0) <= options.edge * float(inverse_range[1] - inverse_range[0])
    rows, columns = ((steps_inside(mask) > 1) & smooth & torch.isfinite(inverse)).nonzero().unbind(1)
    rng = np.random.default_rng(zlib.crc32(f"{record.category}/{record.name}".encode()))
    chosen = torch.from_numpy(np.sort(rng.permutation(len(rows))[: options.pixels]))
    return torch.stack([columns[chosen], rows[chosen]], dim=-1).float()


def _mirrored_features(image, keypoints, pixels, providers, mirror):
    """Features of the mirror image at the places where the object points went; labels are not exchanged here."""
    nothing = torch.zeros(0, providers.backbone.channels, dtype=torch.float16)
    if not mirror:
        return nothing, nothing
    try:
        features = providers.backbone.extract(image.mirror())
    except MissingFileError:
        return nothing, nothing
    return _sampled(features, mirror_points(keypoints, image.width)), features.sample(mirror_points(pixels, image.width)).half()


def _sampled(features, keypoints):
    seen = ~torch.isnan(keypoints[:, :1])
    return (features.sample(keypoints.nan_to_num(nan=0.0)) * seen).half()
