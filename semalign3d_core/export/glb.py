"""Scenes as binary glTF 2.0 files (Khronos specification, section 4.4), which browsers, Blender and phones show."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from semalign3d_core.alignment.result import Alignment
from semalign3d_core.runtime.files import atomic_path
from semalign3d_core.visualization.object_points import object_points

POINT, KEYPOINT = 0.008, 0.025  # radii of the two kinds of points, of the object's diameter
CORNERS = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], np.float32)
FACES = np.array([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]], np.uint32)
TO_GLTF = np.array([1, -1, -1], np.float32)  # camera frame (y down, z forward) to glTF (y up, z backwards)
FLOAT, UNSIGNED_BYTE, UNSIGNED_INT = 5126, 5121, 5125
VERTICES, INDICES = 34962, 34963


class _Buffer:
    """The binary part of the file, and the JSON that says what is where in it."""

    def __init__(self) -> None:
        self.content, self.views, self.accessors = b"", [], []  # type: tuple[bytes, list[dict[str, Any]], list[dict[str, Any]]]

    def add(self, values: np.ndarray, kind: str, component: int, target: int, **more: Any) -> int:
        """Appends an array; returns the index of its accessor."""
        content = np.ascontiguousarray(values).tobytes()
        self.views.append({"buffer": 0, "byteOffset": len(self.content), "byteLength": len(content), "target": target})
        self.content += content + bytes(-len(content) % 4)
        accessor = {"bufferView": len(self.views) - 1, "componentType": component, "count": len(values), "type": kind, **more}
        self.accessors.append(accessor)
        return len(self.accessors) - 1


def write_glb(path: str | Path, alignment: Alignment, image: np.ndarray | None = None) -> None:
    """Writes an alignment: one mesh of small octahedra for the dense points, and one named node for each keypoint."""
    points, buffer = object_points(alignment, image), _Buffer()
    meshes, nodes = [], []
    if len(points.cloud):
        meshes.append(_mesh(buffer, "points", points.cloud * TO_GLTF, points.cloud_colours, POINT * points.size))
        nodes.append({"mesh": 0, "name": alignment.category})
    for place, colour, name in zip(points.keypoints, points.keypoint_colours, points.names, strict=True):
        meshes.append(_mesh(buffer, name, np.zeros((1, 3), np.float32), colour[None], KEYPOINT * points.size))
        nodes.append({"mesh": len(meshes) - 1, "name": name, "translation": [float(v) for v in place * TO_GLTF]})
    document = {
        "asset": {"version": "2.0", "generator": "semalign3d"},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(nodes))), "name": alignment.category}],
        "nodes": nodes,
        "meshes": meshes,
        "materials": [{"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}}],
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.content)}],
        "extras": {"scale_kind": alignment.scale_kind, "confidence": float(alignment.confidence)},
    }
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    chunks = _chunk(b"JSON", text) + _chunk(b"BIN\0", buffer.content)
    with atomic_path(path) as temporary:
        temporary.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)


def _mesh(buffer: _Buffer, name: str, centres: np.ndarray, colours: np.ndarray, radius: float) -> dict[str, Any]:
    """Octahedra around ``centres`` (N, 3) with vertex colours (N, 3) uint8."""
    corners = (centres[:, None] + radius * CORNERS).reshape(-1, 3).astype(np.float32)
    faces = (FACES + len(CORNERS) * np.arange(len(centres), dtype=np.uint32)[:, None, None]).reshape(-1)
    painted = np.pad(_linear(colours).repeat(len(CORNERS), 0), ((0, 0), (0, 1)), constant_values=255)
    normals = np.tile(CORNERS, (len(centres), 1))
    limits = {"min": corners.min(0).tolist(), "max": corners.max(0).tolist()}
    attributes = {
        "POSITION": buffer.add(corners, "VEC3", FLOAT, VERTICES, **limits),
        "NORMAL": buffer.add(normals, "VEC3", FLOAT, VERTICES),
        "COLOR_0": buffer.add(painted, "VEC4", UNSIGNED_BYTE, VERTICES, normalized=True),
    }
    indices = buffer.add(faces, "SCALAR", UNSIGNED_INT, INDICES)
    return {"name": name, "primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}


def _linear(colours: np.ndarray) -> np.ndarray:
    """SRGB to linear uint8, in which glTF has vertex colours (section 3.9.2)."""
    values = colours / 255
    return np.rint(255 * np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)).astype(np.uint8)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack("<I4s", len(content), kind) + content
