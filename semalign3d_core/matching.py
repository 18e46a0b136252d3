"""Points of one image in another, with a category model or without."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike

from semalign3d_core.matchers import MATCHERS
from semalign3d_core.matchers.matcher import Matcher
from semalign3d_core.perception import backbones
from semalign3d_core.perception.backbones import FeatureBackbone
from semalign3d_core.perception.backbones.precision import choose_device
from semalign3d_core.perception.evidence import ChannelOrder, ImageInput, UserImage, as_image
from semalign3d_core.perception.look import Box, look
from semalign3d_core.perception.providers import on_device
from semalign3d_core.pipeline import Pipeline, load_pipeline
from semalign3d_core.results import FrameResult, MatchResult, without_record
from semalign3d_core.runtime.errors import InputError, choice
from semalign3d_core.transfer.aligned_image import aligned_image
from semalign3d_core.transfer.place import cycle_distance, transfer

Boxes = tuple[Box | None, Box | None]
NO_BOXES: Boxes = (None, None)
LATTICE = 24  # points along the longer side of the source, or of its box, where nobody names points


def match(
    source: UserImage,
    target: UserImage,
    points: ArrayLike | torch.Tensor | None = None,
    category: str | Path | Pipeline | None = None,
    *,
    matcher: str | Matcher = "window_soft_argmax",
    backbone: str | FeatureBackbone = "compact",
    boxes: Boxes = NO_BOXES,
    device: str = "auto",
    channel_order: ChannelOrder = "rgb",
) -> MatchResult:
    """Finds points of one image in another: by features alone, or through a category model.

    source, target: images as :meth:`Pipeline.process` takes them
    points:   (Q, 2) pixels of the source, x and y. None: a lattice over the source (or its box), of which those points are kept that
        return to where they were, within a step of the lattice, from the source to the target and back
    category: name or file of a category model, or a pipeline; None compares features alone
    matcher, backbone: what compares features, and whose; without a category only. Names as on the command line, or objects of your own
    boxes:    boxes (x0, y0, x1, y1) of the object in both images, where a detector saw it; None where nobody did
    device:   cpu, cuda, or auto: a GPU where there is one
    channel_order: of arrays and tensors, ``rgb`` or ``bgr``
    Returns a :class:`MatchResult`. Raises :class:`InputError` for points outside of the source.

    >>> cup = "examples/photographs/coffee.jpg"
    >>> match(cup, cup, [[300, 20], [221, 303]])
    MatchResult(examples/photographs/coffee.jpg -> examples/photographs/coffee.jpg: 2 points by window_soft_argmax)
    """
    if len(boxes) != 2 or not all(box is None or isinstance(box, Sequence) for box in boxes):
        raise InputError(f"boxes are {boxes}; give two, one of each image, for example ((10, 20, 110, 120), None)")
    images = as_image(source, channel_order, "source"), as_image(target, channel_order, "target")
    queries = lattice(images[0], boxes[0]) if points is None else _checked(points, images[0])
    if category is not None:
        pipeline = category if isinstance(category, Pipeline) else load_pipeline(str(category), device=device)
        result = _through_category(pipeline, images, queries, boxes)
    else:
        found = _named_backbone(backbone, device) if isinstance(backbone, str) else backbone
        chosen = choice("matcher", matcher, MATCHERS)() if isinstance(matcher, str) else matcher
        result = _by_features(chosen, found, images, queries, boxes)
    return returning(result, boxes[0]) if points is None else result


def lattice(image: ImageInput, box: Box | None = None) -> torch.Tensor:
    """(Q, 2) float32 pixels at equal distances, ``LATTICE`` along the longer side of the image or of a box in it."""
    x0, y0, x1, y1 = _part(image, box)
    step = max(x1 - x0, y1 - y0) / LATTICE
    xs, ys = (torch.arange(start + step / 2, end, step) - 0.5 for start, end in ((x0, x1), (y0, y1)))
    return torch.cartesian_prod(ys, xs).flip(1)


def returning(result: MatchResult, box: Box | None = None) -> MatchResult:
    """The matches of a :func:`lattice` that return within a step of it and lie on the source's mask, where a model gave one."""
    x0, y0, x1, y1 = _part(result.source, box)
    keep = result.cycle <= max(x1 - x0, y1 - y0) / LATTICE
    mask = result.frames[0].evidence.mask if result.frames else None
    if mask is not None:
        columns, rows = result.points.round().long().unbind(1)
        keep &= mask.cpu()[rows.clamp(0, mask.shape[0] - 1), columns.clamp(0, mask.shape[1] - 1)]
    known = {name: value for name, value in vars(result.matches).items() if value is not None}
    matches = replace(result.matches, **{name: value[keep.to(value.device)] for name, value in known.items()})
    return replace(result, points=result.points[keep], matches=matches, cycle=result.cycle[keep])


def _part(image: ImageInput, box: Box | None) -> Box:
    x0, y0, x1, y1 = box or (0, 0, image.width, image.height)
    return max(x0, 0), max(y0, 0), min(x1, image.width), min(y1, image.height)


def _through_category(pipeline: Pipeline, images: tuple[ImageInput, ImageInput], points: torch.Tensor, boxes: Boxes) -> MatchResult:
    frames = [pipeline.process(image, box=box) for image, box in zip(images, boxes, strict=True)]
    return match_frames(pipeline, images, frames, points)


def match_frames(pipeline: Pipeline, images: Sequence[ImageInput], frames: Sequence[FrameResult], points: torch.Tensor) -> MatchResult:
    """The match of ``points`` (Q, 2) between two images with their results (:class:`FrameResult`) by one pipeline."""
    with torch.no_grad():
        source, target = (aligned_image(pipeline.surface, frame.evidence, frame.alignment) for frame in frames)
        matches = transfer(pipeline.surface, source, target, points, pipeline.transfer)
        cycle = cycle_distance(pipeline.surface, source, target, points, pipeline.transfer)
    here, there = (without_record(image) for image in images)
    return MatchResult(here, there, points, matches, cycle, "semalign3d", tuple(frames))


def _by_features(
    matcher: Matcher, backbone: FeatureBackbone, images: tuple[ImageInput, ImageInput], points: torch.Tensor, boxes: Boxes
) -> MatchResult:
    if matcher.uses_mirror or matcher.quarters:
        raise InputError(f"matcher {matcher.name!r} needs keypoints that were annotated as left and right; use it with eval_spair")
    with torch.no_grad():
        source, target = (matcher.prepare(look(image, backbone, detection=box)) for image, box in zip(images, boxes, strict=True))
        matches = matcher.match(source, target, points)
        back = matcher.match(target, source, matches.points.cpu()).points
    here, there = (without_record(image) for image in images)
    return MatchResult(here, there, points, matches, (back.cpu() - points).norm(dim=1), matcher.name)


@lru_cache(maxsize=2)
def _named_backbone(spec: str, device: str) -> FeatureBackbone:
    """Kept for the next pair: reading a network takes longer than matching."""
    return backbones.create(on_device(spec, backbones.BACKBONES, choose_device(device)))


def _checked(points: ArrayLike | torch.Tensor, image: ImageInput) -> torch.Tensor:
    """(Q, 2) float32 on the host; raises for what are no pixels of the image."""
    values = np.asarray(points.detach().cpu() if isinstance(points, torch.Tensor) else points, dtype=np.float32)
    if values.ndim != 2 or values.shape[1] != 2 or not len(values):
        raise InputError(f"points must be (Q, 2) pixels of {image.name}, at least one, found shape {values.shape}")
    limits = np.array([image.width, image.height]) - 0.5
    outside = ~((values >= -0.5) & (values <= limits)).all(1)  # also NaN
    if outside.any():
        raise InputError(f"point {values[outside][0].tolist()} lies outside {image.name} of {image.width} x {image.height} pixels")
    return torch.from_numpy(values)
