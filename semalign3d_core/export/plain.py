"""Results as plain numbers, texts and lists, ready for JSON."""

import math
from typing import Any

import numpy as np
from torch import Tensor

from semalign3d_core.alignment.result import Alignment
from semalign3d_core.geometry.rotations import quaternion
from semalign3d_core.transfer.matches import Matches

Plain = dict[str, Any]


def alignment_to_dict(alignment: Alignment, image: str, width: int, height: int) -> Plain:
    """An alignment to the image of a name and size in pixels; unknown values are None."""
    camera = alignment.camera
    axis = alignment.undetermined_axis
    return {
        "image": image,
        "width": width,
        "height": height,
        "category": alignment.category,
        "model_hash": alignment.model_hash,
        "found": bool(alignment.found),
        "confidence": float(alignment.confidence),
        "scale_kind": alignment.scale_kind,
        "keypoints": [keypoint_to_dict(alignment, k) for k in range(len(alignment.keypoint_names))],
        "pose": {
            "rotation": numbers(alignment.rotation),
            "quaternion_xyzw": numbers(quaternion(alignment.rotation)),
            "translation": numbers(alignment.translation),
            "scale": float(alignment.scale),
            "undetermined_axis": None if axis is None else numbers(axis),
        },
        "camera_matrix": numbers(camera.matrix_pixels()),
        "camera_known": bool(camera.known),
        "energy": float(alignment.energy),
        "terms": {name: float(value) for name, value in alignment.terms.items()},
    }


def keypoint_to_dict(alignment: Alignment, index: int) -> Plain:
    """One keypoint: name, index, pixel, position (camera frame), visible, confidence."""
    return {
        "name": alignment.keypoint_names[index],
        "index": index,
        "pixel": numbers(alignment.keypoints_2d[index]),
        "position": numbers(alignment.keypoints_3d[index]),
        "visible": bool(alignment.visible[index]),
        "confidence": float(alignment.keypoint_confidence[index]),
    }


def matches_to_list(matches: Matches, points: Tensor | np.ndarray | None = None, cycle: Tensor | None = None) -> list[Plain]:
    """Matches, with their points (Q, 2) and cycle distances (Q,) where these are given; None for what the matcher does not know."""
    listed = []
    for q in range(len(matches.points)):
        confidence = float(matches.confidence[q])
        entry: Plain = {} if points is None else {"source": numbers(points[q])}
        entry |= {
            "target": numbers(matches.points[q]),
            "position": None if matches.points_3d is None else numbers(matches.points_3d[q]),
            "visible": None if matches.visible is None else bool(matches.visible[q]),
            "confidence": confidence if math.isfinite(confidence) else None,
        }
        listed.append(entry if cycle is None else {**entry, "cycle_pixels": float(cycle[q])})
    return listed


def numbers(values: Tensor | np.ndarray) -> Any:
    """A tensor or array as nested lists of floats; None if anything in it is not finite."""
    return values.tolist() if bool(np.isfinite(np.asarray(values.tolist(), dtype=np.float64)).all()) else None
