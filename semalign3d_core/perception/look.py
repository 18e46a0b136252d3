"""How an image becomes evidence: which providers are asked, and which part of the image the backbone looks at.

Features are extracted of the whole image or of a square *window* of it. A window gives a small object as many cells as a large one. There
are three reasons to choose a window: the object's mask is known, the object was there in the frame before, or a first alignment shows
that the object is small or reaches beyond what was looked at.
"""

import math
from dataclasses import replace

import torch

from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.geometry.mask_field import cut_off, mask_box, square_around, well_framed
from semalign3d_core.perception.backbones import FeatureBackbone
from semalign3d_core.perception.depth import DepthSource
from semalign3d_core.perception.evidence import FeatureMap, ImageEvidence, ImageInput
from semalign3d_core.perception.masks import MaskSource
from semalign3d_core.runtime.errors import InputError

SMALL = 0.35  # objects whose longer side is below this share of the image are looked at in a window of their own
MARGIN = 0.25  # of that window around the object, on each side, in object sizes
BEYOND = 0.05  # of a window's side by which an object reaches beyond it before more is looked at
SPANNED = 0.7  # of a detected box, that the box of a mask in it covers; else the mask is not of the whole object
AROUND, MOST_LOOKS = 0.5, 3  # of a place where the object may be: margin on each side in its sizes, and how often it is widened
TYPICAL_FOCAL = 1.5  # longer sides of the image, where no camera is known

Window = tuple[int, int, int]  # left, top, side in whole pixels; may reach beyond the image
Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels


def look(
    image: ImageInput,
    backbone: FeatureBackbone,
    depth_source: DepthSource | None = None,
    mask_source: MaskSource | None = None,
    camera: PinholeCamera | None = None,
    box: Box | None = None,
    mask: torch.Tensor | None = None,
    last_box: Box | None = None,
    detection: Box | None = None,
    quick: bool = False,
    place: Box | None = None,
) -> ImageEvidence:
    """Asks the providers for everything they know of an image.

    camera: measured, or None;  box: of the object, a prompt for the mask source;
    mask: (h, w) bool of the object if it is known: the mask source is not asked then. An empty mask counts as none.
    last_box: of the object's mask in the frame before; the object is looked for there first; quick: a less sure look will do there.
    detection: box of the object, by a detector; it is the mask where the mask source finds nothing of nearly its size in it.
    place: where the object is looked for, and around it; see :meth:`MaskSource.search`.
    """
    if detection is not None and mask is None:
        features, mask = _in_box(image, backbone, mask_source, detection)
    elif mask is not None:
        mask = mask if mask.any() else None
        features = backbone.extract(close_up(image, mask, backbone))
    elif place is not None and mask_source is not None:
        features, mask = _look_closer(image, backbone, mask_source, _around(place, image, backbone, mask_source))
    else:
        features, mask = features_and_mask(image, backbone, mask_source, box=box, last_box=last_box, quick=quick)
    return ImageEvidence(
        features=features,
        camera=camera or PinholeCamera.centred(TYPICAL_FOCAL, image.height, image.width),
        mask=mask,
        depth=None if depth_source is None else depth_source.estimate(image),
        image=image.rgb,
        name=image.name,
    )


def close_up(image: ImageInput, mask: torch.Tensor | None, backbone: FeatureBackbone) -> ImageInput:
    """The image with the window that ``backbone`` shall look at where the object's ``mask`` (h, w) is known.

    A backbone with a ``close_up`` margin looks at the surroundings of the object; others, and all without a mask, at the whole image.
    """
    if backbone.close_up is None or mask is None or not mask.any():
        return image
    return replace(image, window=square_around(mask_box(mask.cpu().numpy()), backbone.close_up))


def features_and_mask(
    image: ImageInput,
    backbone: FeatureBackbone,
    mask_source: MaskSource | None,
    box: Box | None = None,
    points: torch.Tensor | None = None,
    last_box: Box | None = None,
    quick: bool = False,
) -> tuple[FeatureMap, torch.Tensor | None]:
    """The features, and the object's mask (h, w) bool or None.

    box, points (N, 2): prompts for the mask source, pixels; last_box, quick: as of :func:`look`
    """
    if mask_source is None:
        return backbone.extract(image), None
    if mask_source.glances and backbone.close_up is not None:
        return _from_two_looks(image, backbone, mask_source, box, points, last_box, quick)
    if not mask_source.reads_features:
        mask = mask_source.segment(image, box=box, points=points)
        return backbone.extract(close_up(image, mask, backbone)), mask
    features = backbone.extract(image)  # the mask source reads them: they are extracted once
    mask = mask_source.segment_features(features, image, box=box, points=points)
    closer = close_up(image, mask, backbone)
    return features if closer is image else backbone.extract(closer), mask


def _in_box(image: ImageInput, backbone: FeatureBackbone, mask_source: MaskSource | None, box: Box) -> tuple[FeatureMap, torch.Tensor]:
    """:func:`features_and_mask` of an object in a known box, which is looked at at once."""
    filled = filled_box(image, box)
    closer = close_up(image, filled, backbone)
    features, mask = backbone.extract(closer), None
    if mask_source is not None and mask_source.reads_features:
        mask = mask_source.segment_features(features, closer, box=box)
    elif mask_source is not None:
        mask = mask_source.segment(image, box=box)
    return features, mask if mask is not None and _area(mask) > SPANNED * _area(filled) else filled


def _area(mask: torch.Tensor) -> float:
    """Of the box around a mask, in pixels."""
    box = mask_box(mask.cpu().numpy())
    return float((box[2:] - box[:2]).prod())


def filled_box(image: ImageInput, box: Box) -> torch.Tensor:
    """(h, w) bool mask of a box; raises :class:`InputError` for one outside of the image, or that is none."""
    if len(box) != 4 or not all(math.isfinite(edge) for edge in box):
        raise InputError(f"{image.name}: the box is {tuple(box)}; give x0, y0, x1, y1 in pixels")
    x0, y0, x1, y1 = (max(round(edge), 0) for edge in box)
    mask = torch.zeros(image.height, image.width, dtype=torch.bool)
    mask[y0:y1, x0:x1] = True
    if not mask.any():
        raise InputError(f"{image.name}: the box {tuple(box)} lies outside of its {image.width} x {image.height} pixels")
    return mask


def _from_two_looks(
    image: ImageInput,
    backbone: FeatureBackbone,
    mask_source: MaskSource,
    box: Box | None,
    points: torch.Tensor | None,
    last_box: Box | None,
    quick: bool,
) -> tuple[FeatureMap, torch.Tensor | None]:
    """:func:`features_and_mask` of an object that is looked at closely where a glance shows it, or at once where it was before."""
    if last_box is not None:
        assert backbone.close_up is not None, "looks twice only with a backbone that looks closely"
        window = square_around(last_box, backbone.close_up)
        closer = replace(image, window=window)
        features = backbone.follow(closer) if quick else backbone.extract(closer)
        mask = mask_source.segment_features(features, closer, box=box, points=points)
        if mask is not None and well_framed(mask_box(mask.cpu().numpy()), window, image.height, image.width):
            return features, mask
    return _look_closer(image, backbone, mask_source, mask_source.glance(image, box=box), box, points)


def _look_closer(
    image: ImageInput,
    backbone: FeatureBackbone,
    mask_source: MaskSource,
    first: torch.Tensor | None,
    box: Box | None = None,
    points: torch.Tensor | None = None,
) -> tuple[FeatureMap, torch.Tensor | None]:
    """Features of the surroundings of a coarse mask ``first`` or None, and the finer mask in them."""
    closer = close_up(image, first, backbone)
    features = backbone.extract(closer)
    mask = mask_source.segment_features(features, closer, box=box, points=points)
    return features, first if mask is None else mask


def _around(place: Box, image: ImageInput, backbone: FeatureBackbone, mask_source: MaskSource) -> torch.Tensor | None:
    """The mask (h, w) or None of the object at a place, a box in pixels: more is looked at until all of the object is seen."""
    window = square_around(place, AROUND)
    for _ in range(MOST_LOOKS):
        closer = replace(image, window=window)
        mask = mask_source.segment_features(backbone.extract(closer), closer)
        if mask is None or not cut_off(mask_box(mask.cpu().numpy()), window, image.height, image.width):
            break
        left, top, side = window
        window = left - side // 4, top - side // 4, side + side // 2
    return mask


def look_at(
    window: Window, image: ImageInput, evidence: ImageEvidence, backbone: FeatureBackbone, mask_source: MaskSource | None
) -> ImageEvidence:
    """``evidence`` with the features of another window.

    Where the whole image was looked at before, ``mask_source`` (or None) reads the mask again, from the finer features.
    """
    closer = replace(image, window=window)
    features, mask = backbone.extract(closer), None
    finer = evidence.features.grid.window is None
    if finer and mask_source is not None and mask_source.any_image and mask_source.reads_features:
        mask = mask_source.segment_features(features, closer)
    return replace(evidence, features=features, mask=evidence.mask if mask is None else mask)


def window_of_small_mask(evidence: ImageEvidence) -> Window | None:
    """The window around the object's mask if the object is small in an image that was looked at as a whole, else None."""
    if evidence.features.grid.window is not None or evidence.mask is None or not evidence.mask.any():
        return None
    points = evidence.mask.nonzero().flip(1).float().cpu()
    return _window_if_small(points.amin(0), points.amax(0), evidence.camera.longer_side)


def window_after(object_pixels: torch.Tensor, found: bool, evidence: ImageEvidence) -> Window | None:
    """The window to look at after a first alignment, or None where what was looked at is right.

    object_pixels: (N, 2) points of the aligned object in the image;  found: what the alignment says of itself

    After a look at the whole image without a mask: the surroundings of an object that is small. After a look at a window: the smallest
    square that holds the window and the object in the image, where the object reaches beyond the window because its mask lacks a part.
    """
    points = object_pixels.cpu()
    low, high = points.amin(0), points.amax(0)
    window = evidence.features.grid.window
    if window is not None:
        return _wider_window(window, low, high, evidence.camera)
    if evidence.mask is not None and evidence.mask.any() or not found:
        return None
    return _window_if_small(low, high, evidence.camera.longer_side)


def _window_if_small(low: torch.Tensor, high: torch.Tensor, longer_side: int) -> Window | None:
    size = float((high - low).max())
    if not size <= SMALL * longer_side:  # also where the alignment failed: NaN coordinates
        return None
    side = max(round(size * (1 + 2 * MARGIN)), 8)
    left, top = ((low + high - side) / 2).round().int().tolist()
    return left, top, side


def _wider_window(window: Window, low: torch.Tensor, high: torch.Tensor, camera: PinholeCamera) -> Window | None:
    left, top, side = window
    end = torch.tensor([camera.width, camera.height]) - 1.0
    before = (torch.tensor([left, top]) - low.clamp(min=0)).clamp(min=0)
    after = (torch.minimum(high, end) - torch.tensor([left, top]) - side).clamp(min=0)
    if not float(torch.stack([before, after]).max()) > BEYOND * side:  # also where the alignment failed: NaN coordinates
        return None
    larger = math.ceil(float((side + before + after).max()))
    # The side that is not the longer one gets the rest on both sides.
    start = torch.tensor([left, top]) - before - (larger - side - before - after) / 2
    return round(float(start[0])), round(float(start[1])), larger
