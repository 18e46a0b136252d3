"""Drawing alignments and matches on pictures, with OpenCV alone: fast enough for every frame of a stream.

All pictures are (h, w, 3) uint8 RGB; the functions return new ones and leave their input as it is.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from semalign3d_core.alignment.result import Alignment
from semalign3d_core.geometry.image_grid import LARGEST
from semalign3d_core.transfer.matches import Matches

FONT = cv2.FONT_HERSHEY_SIMPLEX
AXIS_COLOURS = ((230, 60, 60), (60, 200, 60), (70, 110, 255))  # x, y, z as RViz has them
AXIS_LENGTH = 0.4  # of the object's diameter
FAINTEST = 0.3  # opacity of a keypoint without any confidence
DOUBTFUL = 0.5  # confidence of a visible keypoint below which its part may be missing
READABLE = 640  # pixels of the longer side, to which small pictures are enlarged
NUMBERED = 30  # matches in a picture at most that get a number each
RED, WHITE, BLACK = (200, 40, 40), (255, 255, 255), (0, 0, 0)


@dataclass(frozen=True)
class OverlayStyle:
    """What an overlay shows."""

    names: bool = True  # of the visible keypoints
    cloud: bool = True  # the projected dense points
    axes: bool = True  # of the object's pose
    scale: float = 1  # the picture is enlarged by this factor first


def draw_alignment(image: np.ndarray, alignment: Alignment, style: OverlayStyle | None = None) -> np.ndarray:
    """The picture with an alignment on it: visible keypoints solid, hidden ones hollow, cloud, pose axes, confidence.

    image: (h, w, 3); alignment: :class:`~semalign3d_core.alignment.result.Alignment` of it. A picture without the object gets a
    banner instead, so that nobody takes a guess for a finding. A keypoint fades with its confidence. Its name ends in a question mark where
    it should be seen but the picture does not look like it: the object may lack the part.
    """
    style = style or OverlayStyle()
    canvas = _enlarged(image, style.scale)
    text = f"{alignment.category} {alignment.confidence:.2f}"
    if not alignment.found:
        return _banner(canvas, f"{alignment.category} not found ({alignment.confidence:.2f})", RED)
    if style.cloud:
        _draw_cloud(canvas, alignment, style.scale)
    if style.axes:
        _draw_axes(canvas, alignment, style.scale)
    _draw_keypoints(canvas, alignment, style)
    return _banner(canvas, text, BLACK)


def draw_points(
    image: np.ndarray,
    points: torch.Tensor,
    labels: Sequence[str] | None = None,
    visible: torch.Tensor | None = None,
    known: tuple[str, ...] = (),
) -> np.ndarray:
    """The picture with points (Q, 2) pixels as crosses with their labels; hidden ones (visible (Q,) bool) are thin.

    known: names that the picture shows already, in the order of :func:`keypoint_colours`; a point of such a name takes its
    colour, and its name is not written again.
    """
    canvas, unit = image.copy(), _unit(image)
    placed: list[tuple[int, int, int, int]] = []
    places = np.asarray(points.detach().cpu() if isinstance(points, torch.Tensor) else points, dtype=np.float64)
    labels = [str(q) for q in range(len(places))] if labels is None else labels
    colours = dict(zip(known, keypoint_colours(len(known)), strict=True))
    for q, (place, colour) in enumerate(zip(places, keypoint_colours(len(places)), strict=True)):
        if np.isfinite(place).all() and _near(place, canvas):
            thickness, colour = 2 * unit if visible is None or visible[q] else unit, colours.get(labels[q], colour)
            cv2.drawMarker(canvas, _pixel(place), BLACK, cv2.MARKER_TILTED_CROSS, 12 * unit, thickness + 2, cv2.LINE_AA)
            cv2.drawMarker(canvas, _pixel(place), colour, cv2.MARKER_TILTED_CROSS, 12 * unit, thickness, cv2.LINE_AA)
            if labels[q] not in colours:
                _label(canvas, place, labels[q], placed, unit)
    return canvas


def draw_matches(
    source: np.ndarray,
    target: np.ndarray,
    points: torch.Tensor,
    matches: Matches,
    least_height: int = 240,
) -> np.ndarray:
    """Source and target side by side with a line per match; matches that are hidden in the target end in a ring.

    source, target: pictures, any sizes; points: (Q, 2) pixels of the source; matches: :class:`~semalign3d_core.matchers.Matches`;
    least_height: smaller pictures are enlarged to it.
    """
    height = max(source.shape[0], target.shape[0], least_height)
    left, right = (_resized_to_height(picture, height) for picture in (source, target))
    canvas = np.concatenate([left, np.full((height, 6, 3), 255, np.uint8), right], axis=1)
    here = np.asarray(points, dtype=np.float64) * (height / source.shape[0])
    there = _array(matches.points) * (height / target.shape[0]) + [left.shape[1] + 6, 0]
    visible = np.ones(len(here), bool) if matches.visible is None else _array(matches.visible)
    radius = 4 if len(here) <= NUMBERED else 2
    colours, unit = keypoint_colours(len(here)), _unit(canvas)
    placed: list[tuple[int, int, int, int]] = []
    for a, b, colour in zip(here, there, colours, strict=True):
        if np.isfinite(b).all():
            cv2.line(canvas, _pixel(a), _pixel(b), colour, unit, cv2.LINE_AA)
    for q, (a, b, colour) in enumerate(zip(here, there, colours, strict=True)):
        for place, solid in ((a, True), (b, visible[q])):
            if np.isfinite(place).all():
                _marker(canvas, place, colour, solid, radius * unit, _opacity(float(matches.confidence[q])))
                if len(here) <= NUMBERED:
                    _label(canvas, place, str(q), placed, unit)
    return canvas


def keypoint_colours(count: int) -> list[tuple[int, int, int]]:
    """``count`` colours (RGB tuples) that are easy to tell apart, the same for the same index in every picture."""
    hues = (0.13 + 0.618034 * np.arange(count)) % 1
    rgb = (colorsys.hsv_to_rgb(h, 0.85 - 0.3 * (i % 2), 1.0) for i, h in enumerate(hues))
    return [(int(255 * r), int(255 * g), int(255 * b)) for r, g, b in rgb]


def feature_colours(features: torch.Tensor, known: torch.Tensor | None = None) -> torch.Tensor:
    """(P, 3) uint8: the three main components of features (P, C), each spread over its middle 96 %.

    known: (P,) bool, features of which alone they are the main components
    """
    chosen = (features if known is None else features[known]).double()
    mean = chosen.mean(0)
    axes = torch.linalg.svd(chosen - mean, full_matrices=False)[2][:3].T
    low, high = ((chosen - mean) @ axes).quantile(torch.tensor([0.02, 0.98]).to(chosen), dim=0)
    share = ((features.double() - mean) @ axes - low) / (high - low).clamp(min=1e-12)
    return torch.nn.functional.pad(share.clamp(0, 1).mul(255).round().byte(), (0, 3 - axes.shape[1]))


def readable_scale(image: np.ndarray) -> float:
    """Factor by which a small picture must be enlarged so that names can be read, and one beyond ``LARGEST`` reduced."""
    longer = max(image.shape[:2])
    return LARGEST / longer if longer > LARGEST else max(1, round(READABLE / longer))


def _draw_cloud(canvas, alignment, scale):
    cloud = alignment.cloud_3d
    if not len(cloud):
        return
    front = cloud[:, 2] > 1e-9
    pixels = _array(alignment.camera.to_pixels(alignment.camera.project(torch.where(front[:, None], cloud, torch.ones_like(cloud)))))
    depth, front = _array(cloud[:, 2]), _array(front)
    near, far = np.quantile(depth[front], [0.02, 0.98]) if front.any() else (0, 1)
    shade = np.clip((far - depth) / max(far - near, 1e-9), 0, 1)
    layer, radius = canvas.copy(), max(1, round(max(canvas.shape[:2]) / 300))
    for j in np.argsort(-depth):
        if front[j] and _near(pixels[j] * scale, canvas):
            colour = (int(40 + 60 * shade[j]), int(90 + 160 * shade[j]), int(160 + 95 * shade[j]))
            cv2.circle(layer, _pixel(_enlarge(pixels[j], scale)), radius, colour, -1, cv2.LINE_AA)
    cv2.addWeighted(layer, 0.55, canvas, 0.45, 0, dst=canvas)


def _draw_axes(canvas, alignment, scale):
    ends = (
        alignment.translation
        + AXIS_LENGTH * alignment.scale * torch.cat([torch.zeros(1, 3), torch.eye(3)]).to(alignment.rotation) @ alignment.rotation.T
    )
    if (ends[:, 2] <= 1e-9).any():
        return
    pixels = _enlarge(_array(alignment.camera.to_pixels(alignment.camera.project(ends))), scale)
    if not all(_near(p, canvas) for p in pixels):
        return
    order, thickness = np.argsort(-_array(ends[1:, 2])), 2 * _unit(canvas)  # the nearest axis is drawn last
    for axis in order:
        cv2.arrowedLine(canvas, _pixel(pixels[0]), _pixel(pixels[axis + 1]), AXIS_COLOURS[axis], thickness, cv2.LINE_AA, tipLength=0.12)


def _draw_keypoints(canvas, alignment, style):
    points, visible = _enlarge(_array(alignment.keypoints_2d), style.scale), _array(alignment.visible)
    colours, unit, confidence = keypoint_colours(len(points)), _unit(canvas), alignment.keypoint_confidence.tolist()
    shown = [k for k in range(len(points)) if np.isfinite(points[k]).all() and _near(points[k], canvas)]
    if style.names:
        placed = [(x - 5 * unit, y - 5 * unit, x + 5 * unit, y + 5 * unit) for x, y in points[shown]]  # names cover no marker
        for k in filter(lambda k: visible[k], shown):
            doubt = "?" if confidence[k] < DOUBTFUL else ""
            _label(canvas, points[k], alignment.keypoint_names[k] + doubt, placed, unit)
    for k in sorted(shown, key=lambda k: (visible[k], confidence[k])):
        _marker(canvas, points[k], colours[k], visible[k], 4 * unit, _opacity(confidence[k]))


def _opacity(confidence):
    """Of what has a confidence; full where that is not known."""
    return 1.0 if np.isnan(confidence) else FAINTEST + (1 - FAINTEST) * min(max(confidence, 0.0), 1.0)


def _marker(canvas, place, colour, solid, radius, opacity=1.0):
    """A dot, or a ring where it is not solid."""
    (x, y), reach = _pixel(place), radius + 4
    rows, columns = slice(max(y - reach, 0), max(y + reach, 0)), slice(max(x - reach, 0), max(x + reach, 0))
    before = canvas[rows, columns].copy()
    cv2.circle(canvas, (x, y), radius + 1, BLACK, -1 if solid else 3, cv2.LINE_AA)
    cv2.circle(canvas, (x, y), radius, colour, -1 if solid else 1, cv2.LINE_AA)
    if opacity < 1 and before.size:
        canvas[rows, columns] = cv2.addWeighted(canvas[rows, columns], opacity, before, 1 - opacity, 0)


def _label(canvas, place, text, placed, unit):
    """Writes ``text`` near ``place`` where it covers nothing in ``placed`` (boxes, appended to), with a line to it from further off."""
    size = 0.36 * unit
    (width, height), _ = cv2.getTextSize(text, FONT, size, 1)
    boxes = [box for distance in (7, 16, 28, 42) for box in _boxes_around(place, width, height, distance * unit)]
    room = [b for b in boxes if b[0] >= 0 and b[1] >= 0 and b[2] <= canvas.shape[1] and b[3] <= canvas.shape[0]]
    free = [b for b in room if not any(_overlap(b, other) for other in placed)]
    box = (free or room or boxes)[0]
    placed.append(box)
    nearest = np.clip(place, (box[0], box[1]), (box[2], box[3]))
    if np.linalg.norm(nearest - place) > 10 * unit:
        cv2.line(canvas, _pixel(place), _pixel(nearest), WHITE, unit, cv2.LINE_AA)
    corner = _pixel((box[0], box[3] - 2))
    cv2.putText(canvas, text, corner, FONT, size, BLACK, 2 * unit + 1, cv2.LINE_AA)
    cv2.putText(canvas, text, corner, FONT, size, WHITE, unit, cv2.LINE_AA)


def _boxes_around(place, width, height, gap):
    """Boxes for a text of a size on eight sides of a place, the beside ones first."""
    x, y = place
    sides = [(1, 0), (-1, 0), (1, -1), (-1, -1), (1, 1), (-1, 1), (0, -1), (0, 1)]
    for right, down in sides:
        left = x + right * gap if right > 0 else x - gap - width if right < 0 else x - width / 2
        top = y + down * gap - (height if down < 0 else height / 2 if down == 0 else 0)
        yield left, top, left + width, top + height + 2


def _banner(canvas, text, colour):
    unit = _unit(canvas)
    (width, height), _ = cv2.getTextSize(text, FONT, 0.45 * unit, unit)
    cv2.rectangle(canvas, (0, 0), (min(width + 12 * unit, canvas.shape[1]), height + 10 * unit), colour, -1)
    cv2.putText(canvas, text, (6 * unit, height + 5 * unit), FONT, 0.45 * unit, WHITE, unit, cv2.LINE_AA)
    return canvas


def _overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _near(place, canvas):
    """Inside the picture or so little outside that OpenCV can draw it."""
    return bool(np.isfinite(place).all() and np.abs(place).max() < 3 * max(canvas.shape[:2]))


def _unit(canvas):
    """Pixels of a thin line, growing with the picture."""
    return max(1, round(max(canvas.shape[:2]) / 640))


def _pixel(place):
    return int(round(float(place[0]))), int(round(float(place[1])))


def _array(tensor):
    return tensor.detach().cpu().numpy()


def _enlarge(points, scale):
    return (points + 0.5) * scale - 0.5


def _enlarged(image, scale):
    if scale == 1:
        return image.copy()
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)


def _resized_to_height(image, height):
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_CUBIC)
