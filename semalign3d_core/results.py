"""What a user gets back: the result of one image, and of a match between two; drawing, export, storage."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from semalign3d_core.alignment.result import Alignment
from semalign3d_core.export.plain import alignment_to_dict, matches_to_list
from semalign3d_core.perception.evidence import ImageEvidence, ImageInput
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.files import atomic_path
from semalign3d_core.runtime.outputs import MARK, is_marked
from semalign3d_core.transfer.matches import Matches

LISTED = 30  # rows of a table in a notebook or on a terminal at most


class Result:
    """What both kinds of results have in common: they are drawn, shown and stored."""

    def draw(self, path: str | Path | None = None) -> np.ndarray:
        """The picture (h, w, 3) uint8 RGB of the result; ``path``: file to write it to."""
        raise NotImplementedError

    def show(self) -> None:
        """Shows the picture: below the cell of a notebook, else in the system's viewer."""
        try:
            from IPython.core.getipython import get_ipython
            from IPython.display import display
        except ImportError:
            Image.fromarray(self.draw()).show()
            return
        if get_ipython() is None:
            Image.fromarray(self.draw()).show()
        else:
            display(self)

    def save(self, path: str | Path) -> None:
        """Writes everything, images and features included, to one file (``.safetensors``) that :meth:`load` reads."""
        from semalign3d_core.export.stored import save_result

        save_result(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads what :meth:`save` wrote; a damaged or foreign file raises :class:`FileFormatError`."""
        from semalign3d_core.export.stored import load_result

        return load_result(cls, path)

    def _html(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
        """A picture with a table below it."""
        file = io.BytesIO()
        Image.fromarray(self.draw()).save(file, "JPEG", quality=88)
        picture = base64.b64encode(file.getvalue()).decode()
        lines = [f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in row)}</tr>" for tag, row in _tagged(header, rows[:LISTED])]
        lines += [f"<tr><td>and {len(rows) - LISTED} more</td></tr>"] if len(rows) > LISTED else []
        title = f"<p>{escape(repr(self))}</p>"
        return f'{title}<img style="max-width:100%" src="data:image/jpeg;base64,{picture}"><table>{"".join(lines)}</table>'


@dataclass(frozen=True, repr=False)
class FrameResult(Result):
    """What was found in one image.

    evidence:  :class:`ImageEvidence`, what was seen
    alignment: :class:`Alignment`, where the object is
    matches:   the demonstration's points in the image, :class:`Matches`; None without a demonstration
    labels:    names of these points
    """

    evidence: ImageEvidence
    alignment: Alignment
    matches: Matches | None = None
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_alignment(self.alignment, self.evidence.name)
        if self.matches is not None:
            _check_matches(self.matches, self.evidence.name)

    def draw(self, path: str | Path | None = None) -> np.ndarray:
        """The picture with keypoints, their names, cloud and axes, (h, w, 3) uint8 RGB.

        path: file to write it to, JPEG or PNG. Small pictures are enlarged until names can be read, very large ones reduced.
        """
        from semalign3d_core.visualization.overlay import OverlayStyle, draw_alignment, draw_points, readable_scale

        scale = readable_scale(self._picture())
        picture = draw_alignment(self._picture(), self.alignment, OverlayStyle(scale=scale))
        if self.matches is not None:
            points = (self.matches.points + 0.5) * scale - 0.5
            picture = draw_points(picture, points, self.labels or None, self.matches.visible, self.alignment.keypoint_names)
        return _written(picture, path)

    def to_dict(self) -> dict[str, Any]:
        """The result as plain numbers, texts and lists, ready for JSON; what is unknown is None."""
        camera = self.alignment.camera
        result = alignment_to_dict(self.alignment, self.evidence.name, camera.width, camera.height)
        if self.matches is not None:
            labels = self.labels or [str(q) for q in range(len(self.matches.points))]
            result["matches"] = [{"label": label, **entry} for label, entry in zip(labels, matches_to_list(self.matches), strict=True)]
        return result

    def to_ply(self, path: str | Path) -> None:
        """Writes the object's points and keypoints as a PLY point cloud: camera frame, unit as ``alignment.scale_kind`` says."""
        from semalign3d_core.export.ply import write_ply

        write_ply(path, self.alignment, self.evidence.image)

    def to_glb(self, path: str | Path) -> None:
        """Writes points and named keypoints as a binary glTF scene; glTF has y up and z backwards."""
        from semalign3d_core.export.glb import write_glb

        write_glb(path, self.alignment, self.evidence.image)

    def _picture(self) -> np.ndarray:
        if self.evidence.image is None:
            raise InputError(f"{self.evidence.name}: the evidence of this result holds no image to draw on")
        return self.evidence.image

    def _repr_html_(self) -> str:
        rows = [
            (point["name"], "-" if point["pixel"] is None else "{:.0f}, {:.0f}".format(*point["pixel"]), f"{point['confidence']:.2f}")
            for point in self.to_dict()["keypoints"]
        ]
        return self._html(("keypoint", "x, y", "confidence"), rows)

    def __repr__(self) -> str:
        return f"FrameResult({self.evidence.name}: {repr(self.alignment).removeprefix('Alignment(')}"


@dataclass(frozen=True, repr=False)
class MatchResult(Result):
    """Points of one image in another.

    source, target: the two images
    points:  (Q, 2) float32 pixels of the source
    matches: :class:`Matches`, where they are in the target
    cycle:   (Q,) pixels by which they return beside themselves after source -> target -> source: small where the match can be trusted
    method:  name of the matcher
    frames:  the results of both images where a category model was used, else ()
    """

    source: ImageInput
    target: ImageInput
    points: Tensor
    matches: Matches
    cycle: Tensor
    method: str
    frames: tuple[FrameResult, ...] = ()

    def __post_init__(self) -> None:
        _check_matches(self.matches, f"{self.source.name} -> {self.target.name}")
        _check(f"{self.source.name} -> {self.target.name}", {"the cycle distances": self.cycle})

    def draw(self, path: str | Path | None = None) -> np.ndarray:
        """Both pictures side by side with a line per match, (h, w, 3) uint8 RGB; ``path``: file to write it to."""
        from semalign3d_core.visualization.overlay import draw_matches

        return _written(draw_matches(self.source.rgb, self.target.rgb, self.points, self.matches, least_height=480), path)

    def to_dict(self) -> dict[str, Any]:
        """The result as plain numbers, texts and lists, ready for JSON; what is unknown is None."""
        result: dict[str, Any] = {"method": self.method, "source": {"image": self.source.name}, "target": {"image": self.target.name}}
        for end, frame in zip(("source", "target"), self.frames, strict=False):
            result[end] |= {"found": bool(frame.alignment.found), "confidence": float(frame.alignment.confidence)}
        if self.frames:
            alignment = self.frames[1].alignment
            result |= {"category": alignment.category, "model_hash": alignment.model_hash, "scale_kind": alignment.scale_kind}
        return {**result, "matches": matches_to_list(self.matches, self.points, self.cycle)}

    def _repr_html_(self) -> str:
        ends = ((self.points[q], self.matches.points[q]) for q in range(len(self.points)))
        rows = [
            ("{:.0f}, {:.0f}".format(*here.tolist()), "{:.0f}, {:.0f}".format(*there.tolist()), f"{float(self.matches.confidence[q]):.2f}")
            for q, (here, there) in enumerate(ends)
        ]
        return self._html(("source x, y", "target x, y", "confidence"), rows)

    def __repr__(self) -> str:
        return f"MatchResult({self.source.name} -> {self.target.name}: {len(self.points)} points by {self.method})"


# What leaves the package is checked here, and nowhere else: no number that is not finite, no confidence outside of 0..1.


def _check_alignment(alignment: Alignment, name: str) -> None:
    """Raises :class:`InputError` for an alignment with numbers that mean nothing; absent keypoints are NaN throughout, and not seen."""
    known = alignment.keypoints_3d.isfinite().any(1)
    absent = ~known & alignment.keypoints_3d.isnan().all(1) & alignment.keypoints_2d.isnan().all(1)
    absent &= ~alignment.visible & (alignment.keypoint_confidence == 0)
    _check(
        name,
        {
            "the keypoints": torch.cat([alignment.keypoints_3d[~absent], alignment.keypoints_2d[~absent]], 1),
            "the object's points": alignment.cloud_3d,
            "the pose": torch.cat([alignment.rotation.flatten(), alignment.translation]),
            "the scale": torch.tensor(alignment.scale),
            "the camera": torch.cat([alignment.camera.focal, alignment.camera.principal]),
            "the energy": torch.tensor([alignment.energy, *alignment.terms.values()]),
        },
        (alignment.confidence, alignment.keypoint_confidence),
    )


def _check_matches(matches: Matches, name: str) -> None:
    unknown = bool(matches.confidence.isnan().all())  # of a matcher that has none
    points = [matches.points] if matches.points_3d is None else [matches.points, matches.points_3d]
    _check(name, {"the matches": torch.cat(points, 1)}, () if unknown else (matches.confidence,))


def _check(name: str, values: dict[str, Tensor], confidences: Sequence[float | Tensor] = ()) -> None:
    wrong = next((what for what, numbers in values.items() if not bool(torch.isfinite(numbers).all())), None)
    if wrong is None and not all(bool(((value >= 0) & (value <= 1)).all()) for value in map(torch.as_tensor, confidences)):
        wrong = "the confidences"
    if wrong is not None:
        text = "came out as numbers that mean nothing; check the camera, the depth, the diameter, the model and its backbone"
        raise InputError(f"{name}: {wrong} {text}")


def without_record(image: ImageInput) -> ImageInput:
    """An image without its data-set record, which is no part of a result."""
    return replace(image, record=None)


def _written(picture: np.ndarray, path: str | Path | None) -> np.ndarray:
    if path is not None:
        write_picture(path, picture)
    return picture


def write_picture(path: str | Path, rgb: np.ndarray) -> None:
    """Writes an (h, w, 3) uint8 RGB picture atomically; the suffix chooses the format."""
    if Path(path).suffix.lower() not in Image.registered_extensions():
        raise InputError(f"{path}: no picture format has the suffix {Path(path).suffix!r}; choose .png or .jpg")
    with atomic_path(path, is_marked) as temporary:
        about = PngInfo()
        about.add_text("Software", MARK.decode())
        Image.fromarray(rgb).save(temporary, pnginfo=about, comment=MARK)  # so that it is known as a result and may be replaced


def _tagged(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[tuple[str, Sequence[str]]]:
    return [("th", header), *(("td", row) for row in rows)]
