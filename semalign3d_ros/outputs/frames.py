"""Frames of objects, of their keypoints and of grasps; results in another frame than the camera's."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from geometry_msgs.msg import Pose, Quaternion, Transform, TransformStamped, Vector3
from std_msgs.msg import Header

from semalign3d_core.alignment.result import Alignment
from semalign3d_core.alignment.uncertainty import Uncertainty
from semalign3d_core.geometry.rotations import quaternion
from semalign3d_core.runtime.errors import FileFormatError, MissingFileError
from semalign3d_ros.outputs.messages import point

GRASP_KEYS = {"origin", "axis", "approach"}


@dataclass(frozen=True)
class Grasp:
    """A frame made of keypoints, named in a YAML file.

    origin: names of the keypoints whose mean is the origin;  axis, approach: pairs of names, from the first keypoint to the second:
    the x axis points along ``axis``, the z axis along ``approach`` as far as that is square to x
    """

    name: str
    origin: tuple[str, ...]
    axis: tuple[str, str]
    approach: tuple[str, str]

    def pose(self, alignment: Alignment) -> tuple[np.ndarray, np.ndarray] | None:
        """(rotation (3, 3), position (3,)) in the camera frame; None where a keypoint is missing or the directions are parallel."""
        known = dict(zip(alignment.keypoint_names, alignment.keypoints_3d.double().numpy(), strict=True))
        try:
            origin = np.mean([known[name] for name in self.origin], axis=0)
            x, z = (known[last] - known[first] for first, last in (self.axis, self.approach))
        except KeyError:
            return None
        z = z - x * (x @ z) / max(x @ x, 1e-12)
        if not np.isfinite([*origin, *x, *z]).all() or min(np.linalg.norm(x), np.linalg.norm(z)) < 1e-6:
            return None
        x, z = x / np.linalg.norm(x), z / np.linalg.norm(z)
        return np.stack([x, np.cross(z, x), z], axis=1), origin


def read_grasps(path: str) -> tuple[Grasp, ...]:
    """The grasps of a YAML file: ``name: {origin: [keypoint, ...], axis: [from, to], approach: [from, to]}``; none for an empty path."""
    if not path:
        return ()
    if not Path(path).is_file():
        raise MissingFileError(f"grasps {path} does not exist; it is a YAML file of frames made of keypoints")
    try:
        content = yaml.safe_load(Path(path).read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise FileFormatError(f"{path}: expected a mapping of names to {{origin, axis, approach}}")
    return tuple(_grasp(path, str(name), value) for name, value in content.items())


def _grasp(path, name, value):
    if not isinstance(value, dict) or set(value) != GRASP_KEYS:
        raise FileFormatError(f"{path}: {name} is {value!r}, expected exactly the keys {', '.join(sorted(GRASP_KEYS))}")
    origin = [value["origin"]] if isinstance(value["origin"], str) else value["origin"]
    pairs = value["axis"], value["approach"]
    names = isinstance(origin, list) and origin and all(isinstance(key, str) for key in origin)
    if not names or not all(isinstance(pair, list) and len(pair) == 2 and all(isinstance(key, str) for key in pair) for pair in pairs):
        raise FileFormatError(f"{path}: {name} needs names of keypoints: origin one or several, axis and approach two each (from, to)")
    return Grasp(name, tuple(origin), tuple(value["axis"]), tuple(value["approach"]))


def pose_of(rotation: Any, position: Any) -> Pose:
    """A rotation (3, 3) and a position (3,) as Pose."""
    x, y, z, w = quaternion(torch.as_tensor(np.asarray(rotation))).tolist()
    return Pose(position=point(position), orientation=Quaternion(x=x, y=y, z=z, w=w))


def transform_stamped(header: Header, child: str, pose: Pose) -> TransformStamped:
    """A pose in the frame of ``header`` as the transform of a frame ``child``."""
    place = pose.position
    transform = Transform(translation=Vector3(x=place.x, y=place.y, z=place.z), rotation=pose.orientation)
    return TransformStamped(header=header, child_frame_id=child, transform=transform)


@dataclass(frozen=True)
class Place:
    """The frame that results in metres are published in; ``matrix`` (4, 4): to it from the camera's, None where they are the same."""

    frame: str
    matrix: np.ndarray | None = None

    def alignment(self, alignment: Alignment) -> Alignment:
        """The alignment with its positions in this frame."""
        if self.matrix is None:
            return alignment
        turn, shift = (torch.from_numpy(part).to(alignment.rotation) for part in (self.matrix[:3, :3], self.matrix[:3, 3]))
        moved = {name: getattr(alignment, name) @ turn.T + shift for name in ("translation", "keypoints_3d", "cloud_3d")}
        return replace(alignment, rotation=turn @ alignment.rotation, **moved)

    def uncertainty(self, uncertainty: Uncertainty | None) -> Uncertainty | None:
        """The covariances in this frame."""
        if self.matrix is None or uncertainty is None:
            return uncertainty
        turn = torch.from_numpy(self.matrix[:3, :3]).to(uncertainty.pose)
        both = torch.block_diag(turn, turn)
        return replace(uncertainty, pose=both @ uncertainty.pose @ both.T, positions=turn @ uncertainty.positions @ turn.T)
