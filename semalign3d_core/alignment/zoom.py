"""Looking again where a first alignment says the object is: small objects closer, because nothing in a solver replaces the resolution of
features, and objects of which the mask shows a part with more of their surroundings."""

import math
from dataclasses import replace

import cv2
import numpy as np
import torch

from semalign3d_core.alignment.outcome import state_in_picture
from semalign3d_core.geometry.image_grid import cut_square
from semalign3d_core.perception.evidence import DepthMap, ImageInput, gather

SMALL = 0.35  # objects whose longer side is below this share of the image are looked at again
MARGIN = 0.25  # of the crop around the object's box, on each side, in object sizes
BEYOND = 0.05  # of a window's side by which an object reaches beyond it before more is looked at


def align_with_zoom(aligner, evidence, extract, previous=None):
    """The :class:`Alignment` of an image, from a crop of it where the object is small.

    extract: (left, top, side) in whole pixels -> :class:`ImageEvidence` of that square of the image (which may reach
    beyond it), at any resolution; see :func:`crop_extractor`. The object's place is that of its mask, or of a first
    alignment of the whole image. Everything returned belongs to the whole image.
    """
    first = None
    if evidence.mask is None or not evidence.mask.any():
        first = aligner.align(evidence, previous)
        if not first.found:
            return first
        points = evidence.camera.to_pixels(first.camera.project(first.cloud_3d)).cpu()
    else:
        points = evidence.mask.nonzero().flip(1).float().cpu()
    low, high = points.amin(0), points.amax(0)
    size = float((high - low).max())
    if size > SMALL * evidence.camera.longer_side:
        return first or aligner.align(evidence, previous)
    side = max(round(size * (1 + 2 * MARGIN)), 8)
    left, top = ((low + high - side) / 2).round().int().tolist()
    crop = extract((left, top, side))
    camera = _crop_camera(aligner, evidence.camera, left, top, side)
    crop = replace(crop, camera=camera.resized(crop.camera.height, crop.camera.width))
    zoomed = _in_whole_image(aligner.align(crop), evidence.camera, left, top, side)
    return zoomed if first is None or zoomed.confidence >= first.confidence else first


def align_with_wider_look(aligner, evidence, look, previous=None):
    """(The :class:`Alignment` of an image, the evidence that it is of), whose features may be those of a window around the mask.

    Where the object is found to reach beyond the window, because the mask lacks a part of it, it is aligned again with features of all of
    it, and the more confident alignment counts. look: window (left, top, side) -> :class:`FeatureMap`.
    """
    first = aligner.align(evidence, previous)
    window = None if evidence.features.grid.window is None else _wider_window(evidence, first)
    if window is None:
        return first, evidence
    wider = replace(evidence, features=look(window))
    second = aligner.align(wider)
    return (second, wider) if second.confidence >= first.confidence else (first, evidence)


def _wider_window(evidence, alignment):
    """The smallest square that holds the evidence's window and the aligned object in the picture; None if the window nearly does."""
    left, top, side = evidence.features.grid.window
    points = evidence.camera.to_pixels(alignment.camera.project(alignment.cloud_3d)).cpu()
    size = torch.tensor([evidence.camera.width, evidence.camera.height])
    low, high = points.amin(0).clamp(min=0), torch.minimum(points.amax(0), size - 1.0)
    before = (torch.tensor([left, top]) - low).clamp(min=0)
    after = (high - torch.tensor([left, top]) - side).clamp(min=0)
    if not float(torch.stack([before, after]).max()) > BEYOND * side:  # nor where an alignment is lost in places that are no numbers
        return None
    larger = math.ceil(float((side + before + after).max()))
    # The side that is not the longer one gets the rest on both sides.
    start = torch.tensor([left, top]) - before - (larger - side - before - after) / 2
    return round(float(start[0])), round(float(start[1])), larger


def crop_extractor(image, backbone, evidence, depth=None, segmenter=None):
    """An ``extract`` for :func:`align_with_zoom`: crops image, mask and depth, enlarges them and asks the backbone again.

    image: :class:`ImageInput`; depth, segmenter: providers that are asked again, or None to crop what ``evidence`` has.
    """

    def extract(square):
        longer = max(image.height, image.width)

        def cut(array, interpolation, outside=0):
            return cv2.resize(_square(array, square, outside), (longer, longer), interpolation=interpolation)

        rgb = cut(image.rgb, cv2.INTER_CUBIC)
        known = None
        if evidence.mask is not None:
            known = torch.from_numpy(cut(evidence.mask.cpu().numpy().astype(np.uint8), cv2.INTER_NEAREST) > 0)
        seen = gather(ImageInput(rgb, name=image.name), backbone, depth, segmenter, mask=known if segmenter is None else None)
        mask = known if seen.mask is None else seen.mask
        values = seen.depth
        if depth is None and evidence.depth is not None:
            part = cut(evidence.depth.values.cpu().numpy(), cv2.INTER_NEAREST, np.nan)
            values = DepthMap(torch.from_numpy(part), evidence.depth.kind)
        return replace(seen, mask=mask, depth=values)

    return extract


def _square(array, square, outside):
    """The square (left, top, side) of an array (h, w, ...), filled up with ``outside`` beyond it."""
    planes = torch.from_numpy(array.reshape(*array.shape[:2], -1)).movedim(2, 0)
    return cut_square(planes, square, outside).movedim(0, 2).reshape(square[2], square[2], *array.shape[2:]).numpy()


def _crop_camera(aligner, camera, left, top, side):
    """Camera of the crop. An unknown focal length is set to the typical one of the whole image: nothing in a crop tells it."""
    if not camera.known:
        typical = aligner.category.log_focal[0].exp().cpu()
        camera = replace(camera.with_focal(typical * camera.focal / camera.focal.mean()), known=True)
    return camera.cropped(left, top, side, side)


def _in_whole_image(alignment, camera, left, top, side):
    """The alignment of a crop as one of the whole image: the camera frame is the same, pixels are not."""
    scale = side / alignment.camera.width
    whole = camera if camera.known else camera.with_focal(alignment.camera.focal * side / camera.longer_side)
    offset = torch.tensor([float(left), float(top)]).to(alignment.keypoints_2d)

    def pixels(points):
        return (points + 0.5) * scale - 0.5 + offset

    diagnostics = dict(alignment.diagnostics, zoom=(left, top, side))
    for name in ("candidates_2d", "starts_2d"):
        if name in diagnostics:
            diagnostics[name] = pixels(diagnostics[name])
    diagnostics["candidates_focal"] = diagnostics["candidates_focal"] * side / camera.longer_side
    corners = pixels(diagnostics["box"].reshape(2, 2) * alignment.camera.longer_side)
    diagnostics["box"] = box = (corners / camera.longer_side).reshape(4)
    diagnostics["mask_box"] = None if diagnostics["mask_box"] is None else tuple(box.tolist())
    diagnostics["state"] = state_in_picture(diagnostics["state"], side / camera.longer_side, box)
    return replace(alignment, keypoints_2d=pixels(alignment.keypoints_2d), camera=whole, diagnostics=diagnostics)
