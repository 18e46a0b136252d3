"""Point clouds as binary PLY files."""

from pathlib import Path

import numpy as np

from semalign3d_core.alignment.result import Alignment
from semalign3d_core.runtime.files import atomic_path
from semalign3d_core.visualization.object_points import object_points

VERTEX = np.dtype([("place", "<f4", 3), ("colour", "u1", 3), ("keypoint", "<i4")])


def write_ply(path: str | Path, alignment: Alignment, image: np.ndarray | None = None) -> None:
    """Writes dense points and keypoints of an alignment as vertices with colours.

    The property ``keypoint`` is -1 for dense points, else the number of the keypoint; comments in the header name them.
    """
    points = object_points(alignment, image)
    vertices = np.zeros(len(points.cloud) + len(points.keypoints), VERTEX)
    vertices["place"] = np.concatenate([points.cloud, points.keypoints])
    vertices["colour"] = np.concatenate([points.cloud_colours, points.keypoint_colours])
    vertices["keypoint"] = np.concatenate([np.full(len(points.cloud), -1), np.arange(len(points.keypoints))])
    names = [f"comment keypoint {k} {' '.join(name.split())}" for k, name in enumerate(points.names)]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment {alignment.category}, camera frame: x right, y down, z forward; {alignment.scale_kind} scale",
        *names,
        f"element vertex {len(vertices)}",
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {colour}" for colour in ("red", "green", "blue")),
        "property int keypoint",
        "end_header\n",
    ]
    with atomic_path(path) as temporary:
        temporary.write_bytes("\n".join(header).encode() + vertices.tobytes())
