"""Results of the core as messages, as pure functions."""

import array
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Pose, PoseStamped, PoseWithCovariance, PoseWithCovarianceStamped, Quaternion
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

from semalign3d_core.alignment.result import Alignment
from semalign3d_core.alignment.uncertainty import Uncertainty
from semalign3d_core.geometry.rotations import quaternion
from semalign3d_core.pipeline import Demonstration, FrameResult
from semalign3d_core.runtime.errors import InputError
from semalign3d_ros.msg import Correspondence, Correspondences, Point2D, SemanticKeypoint, SemanticKeypoints, SemanticObjects

SCALE_KINDS = {"relative": SemanticKeypoints.SCALE_RELATIVE, "metric": SemanticKeypoints.SCALE_METRIC}


def keypoints_message(
    alignment: Alignment, header: Header, latency: float, number: int = 0, uncertainty: Uncertainty | None = None, predicted: bool = False
) -> SemanticKeypoints:
    """:class:`Alignment` as SemanticKeypoints.

    latency: in seconds;  number: of the object over all frames;  predicted: the image itself was not looked at
    """
    camera = alignment.camera
    return SemanticKeypoints(
        header=header,
        category=alignment.category,
        model_hash=alignment.model_hash,
        found=bool(alignment.found),
        confidence=float(alignment.confidence),
        keypoints=[_keypoint(alignment, index, uncertainty) for index in range(len(alignment.keypoint_names))],
        pose=_pose(alignment),
        scale=float(alignment.scale),
        scale_kind=SCALE_KINDS[alignment.scale_kind],
        focal_length=(camera.focal * camera.longer_side).double().tolist(),
        latency=_duration(latency),
        object_id=number,
        pose_covariance=_flat(None if uncertainty is None else uncertainty.pose, 36),
        predicted=predicted,
    )


def objects_message(objects: list[SemanticKeypoints], header: Header) -> SemanticObjects:
    """All objects of a frame as SemanticObjects."""
    return SemanticObjects(header=header, objects=objects)


def correspondences_message(demonstration: Demonstration, result: FrameResult, header: Header, latency: float) -> Correspondences:
    """The demonstration's points in a frame (:class:`FrameResult`) as Correspondences."""
    alignment, matches = result.alignment, result.matches
    if matches is None or matches.points_3d is None or matches.visible is None:
        raise InputError("these matches say nothing of positions and visibility; matches of a demonstration do")
    return Correspondences(
        header=header,
        category=alignment.category,
        model_hash=alignment.model_hash,
        demonstration=demonstration.image.name,
        found=bool(alignment.found),
        confidence=float(alignment.confidence),
        correspondences=[
            Correspondence(
                label=label,
                demonstration_pixel=_pixel(demonstration.points[index]),
                pixel=_pixel(matches.points[index]),
                position=point(matches.points_3d[index]),
                visible=bool(matches.visible[index]),
                confidence=float(matches.confidence[index]),
            )
            for index, label in enumerate(demonstration.labels)
        ],
        scale_kind=SCALE_KINDS[alignment.scale_kind],
        latency=_duration(latency),
    )


def covariance_message(alignment: Alignment, header: Header, uncertainty: Uncertainty) -> PoseWithCovarianceStamped:
    """The object's pose with its covariance."""
    pose = PoseWithCovariance(pose=_pose(alignment), covariance=_flat(uncertainty.pose, 36))
    return PoseWithCovarianceStamped(header=header, pose=pose)


def pose_message(alignment: Alignment, header: Header) -> PoseStamped:
    """The object's pose as PoseStamped."""
    return PoseStamped(header=header, pose=_pose(alignment))


def cloud_message(alignment: Alignment, header: Header) -> PointCloud2:
    """The dense points of the aligned model as PointCloud2 (x, y, z float32)."""
    points = np.ascontiguousarray(alignment.cloud_3d.cpu().numpy(), dtype="<f4")
    data = array.array("B")
    data.frombytes(points.tobytes())
    return PointCloud2(
        header=header, height=1, width=len(points), is_dense=True, is_bigendian=False, point_step=12, row_step=12 * len(points), data=data,
        fields=[PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1) for i, name in enumerate("xyz")],
    )  # fmt: skip


def markers_message(alignment: Alignment, header: Header) -> MarkerArray:
    """Keypoints as MarkerArray: one sphere list, coloured by confidence and pale where hidden, and one text for each name."""
    present = [i for i, position in enumerate(alignment.keypoints_3d) if bool(position.isfinite().all())]
    size = 0.03 * float(alignment.scale)
    spheres = Marker(header=header, ns="keypoints", id=0, type=Marker.SPHERE_LIST, action=Marker.ADD, pose=_identity())
    spheres.scale.x = spheres.scale.y = spheres.scale.z = size
    texts = []
    for index in present:
        spheres.points.append(point(alignment.keypoints_3d[index]))
        spheres.colors.append(_colour(alignment, index))
        text = Marker(header=header, ns="names", id=index, type=Marker.TEXT_VIEW_FACING, action=Marker.ADD, pose=_identity())
        text.pose.position = point(alignment.keypoints_3d[index])
        text.text, text.scale.z, text.color = alignment.keypoint_names[index], size, _colour(alignment, index)
        texts.append(text)
    clear = Marker(header=header, action=Marker.DELETEALL)
    return MarkerArray(markers=[clear, spheres, *texts] if alignment.found else [clear])


def _flat(matrix, count):
    """The numbers of a covariance; NaN throughout where any is not known."""
    values = np.full(count, np.nan) if matrix is None else np.asarray(matrix, dtype=np.float64).reshape(count)
    return values if np.isfinite(values).all() else np.full(count, np.nan)


def _keypoint(alignment, index, uncertainty):
    return SemanticKeypoint(
        name=alignment.keypoint_names[index],
        index=index,
        pixel=_pixel(alignment.keypoints_2d[index]),
        position=point(alignment.keypoints_3d[index]),
        visible=bool(alignment.visible[index]),
        confidence=float(alignment.keypoint_confidence[index]),
        pixel_covariance=_flat(None if uncertainty is None else uncertainty.pixels[index], 4),
        position_covariance=_flat(None if uncertainty is None else uncertainty.positions[index], 9),
    )


def _pose(alignment):
    x, y, z, w = quaternion(alignment.rotation).tolist()
    return Pose(position=point(alignment.translation), orientation=Quaternion(x=x, y=y, z=z, w=w))


def _identity():
    return Pose(orientation=Quaternion(w=1.0))


def _colour(alignment, index):
    colour = Marker().color
    confidence = float(alignment.keypoint_confidence[index])
    colour.r, colour.g, colour.b = 1.0 - confidence, confidence, 0.2
    colour.a = 1.0 if bool(alignment.visible[index]) else 0.35
    return colour


def _pixel(values):
    x, y = (float(v) for v in values)
    return Point2D(x=x, y=y)


def point(values: Any) -> Point:
    """Three numbers as Point."""
    x, y, z = (float(v) for v in values)
    return Point(x=x, y=y, z=z)


def _duration(seconds):
    nanoseconds = round(max(seconds, 0.0) * 1e9)
    return Duration(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)
