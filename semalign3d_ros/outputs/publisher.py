"""The topics of the results. What other nodes would read as metres is published only where it is metres."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from geometry_msgs.msg import PoseArray, PoseStamped, PoseWithCovarianceStamped, TransformStamped
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from semalign3d_core.alignment.result import Alignment
from semalign3d_core.alignment.uncertainty import Uncertainty
from semalign3d_core.pipeline import FrameResult
from semalign3d_ros.inputs.decoder import Problem, SensorFrame
from semalign3d_ros.inputs.detections import detections_3d, vision_messages
from semalign3d_ros.inputs.transforms import TF, tf_messages
from semalign3d_ros.memory import Found
from semalign3d_ros.msg import Correspondences, SemanticKeypoints, SemanticObjects
from semalign3d_ros.outputs import messages
from semalign3d_ros.outputs.frames import Grasp, Place, pose_of, transform_stamped
from semalign3d_ros.outputs.overlay import overlay_message

UP_TO_SCALE = "_up_to_scale"  # ending of the frame of positions in an unknown unit


@dataclass(frozen=True)
class _Shown:
    """An object as it is published: its pixels are those of the picture that was received."""

    found: Found
    result: FrameResult
    uncertainty: Uncertainty | None

    @property
    def alignment(self) -> Alignment:
        return self.result.alignment

    def at(self, place: Place) -> "_Shown":
        """The same in another frame."""
        result = replace(self.result, alignment=place.alignment(self.alignment))
        return replace(self, result=result, uncertainty=place.uncertainty(self.uncertainty))


class ResultPublisher:
    """Publishes what was found in a frame; costly messages are made only while somebody listens. ``grasps``: frames made of keypoints."""

    def __init__(self, node: Node, problem: Problem, grasps: tuple[Grasp, ...] = ()) -> None:
        self._problem, self._grasps = problem, grasps

        def publisher(message_type: Any, topic: str) -> Publisher:
            options = QoSOverridingOptions.with_default_policies()
            return node.create_publisher(message_type, topic, 10, qos_overriding_options=options)

        self._keypoints = publisher(SemanticKeypoints, "keypoints")
        self._objects = publisher(SemanticObjects, "objects")
        self._correspondences = publisher(Correspondences, "correspondences")
        self._overlay = publisher(Image, "overlay")
        self._markers = publisher(MarkerArray, "markers")
        # Of the best object; what says nothing is not published.
        self._metric: dict[Publisher, Callable[[_Shown, Header], Any]] = {
            publisher(PoseStamped, "pose"): lambda shown, header: messages.pose_message(shown.alignment, header),
            publisher(PoseWithCovarianceStamped, "pose_with_covariance"): _covariance,
            publisher(PointCloud2, "points"): lambda shown, header: messages.cloud_message(shown.alignment, header),
            publisher(PoseArray, "grasps"): self._grasp_poses,
            self._markers: lambda shown, header: messages.markers_message(shown.alignment, header),
        }
        self._tf_message = tf_messages()
        self._tf = None if self._tf_message is None else publisher(self._tf_message, TF)
        vision = vision_messages()
        self._detections = None if vision is None else publisher(vision.Detection3DArray, "detections_3d")

    def publish(self, found: list[Found], frame: SensorFrame, header: Header, latency: float, place: Place | None) -> None:
        """Publishes the objects of a frame, of which the first is the best.

        latency: in seconds;  place: of what is published in metres; None: it is not known, nothing is
        """
        shown = [_Shown(one, as_received(one.result, frame), one.uncertainty) for one in found]
        objects = [messages.keypoints_message(one.alignment, header, latency, one.found.number, one.uncertainty) for one in shown]
        self._keypoints.publish(objects[0])
        self._objects.publish(messages.objects_message([one for one in objects if one.found], header))
        result, pipeline = shown[0].result, found[0].pipeline
        if result.matches is not None and pipeline.demonstration is not None:
            self._correspondences.publish(messages.correspondences_message(pipeline.demonstration, result, header, latency))
        if result.alignment.found:
            self._publish_metric(shown[0], header, place, found[0].by.parameters.relative_outputs)
        elif self._markers.get_subscription_count():
            self._markers.publish(messages.markers_message(result.alignment, header))  # clears the old ones
        self._publish_frames([one for one in shown if one.alignment.found and one.alignment.scale_kind == "metric"], header, place)
        if self._overlay.get_subscription_count():
            self._overlay.publish(overlay_message(pipeline, found[0].result, header))

    def publish_predicted(self, found: list[Found], frame: SensorFrame, header: Header, latency: float) -> None:
        """Publishes where the objects of an earlier ``frame`` are expected, marked as such; topics that cannot say so stay silent."""
        shown = [(as_received(one.result, frame).alignment, one.number) for one in found]
        objects = [messages.keypoints_message(alignment, header, latency, number, predicted=True) for alignment, number in shown]
        self._keypoints.publish(objects[0])
        self._objects.publish(messages.objects_message(objects, header))

    def _publish_metric(self, shown: _Shown, header: Header, place: Place | None, relative_too: bool) -> None:
        wanted = {publisher: make for publisher, make in self._metric.items() if publisher.get_subscription_count()}
        if shown.alignment.scale_kind != "metric":
            if wanted and not relative_too:
                topics = ", ".join(publisher.topic_name for publisher in wanted)
                text = (
                    f"nothing is published on {topics}; give metric depth, the parameter diameter or category_size, or set relative_outputs"
                )
                self._problem("scale: not known", text)
            if not relative_too:
                return
            header = Header(stamp=header.stamp, frame_id=header.frame_id + UP_TO_SCALE)
        elif place is None:
            return
        else:
            shown, header = shown.at(place), Header(stamp=header.stamp, frame_id=place.frame)
        for publisher, make in wanted.items():
            message = make(shown, header)
            if message is not None:
                publisher.publish(message)

    def _publish_frames(self, metric: list[_Shown], header: Header, place: Place | None) -> None:
        """TF of all objects in metres, of their grasps and chosen keypoints, and 3D detections."""
        if self._tf is not None and metric:
            self._tf.publish(self._tf_message(transforms=[one for shown in metric for one in self._transforms(shown, header)]))
        if self._detections is not None and place is not None and self._detections.get_subscription_count():
            header = Header(stamp=header.stamp, frame_id=place.frame)
            moved = [(place.alignment(one.alignment), one.found.number) for one in metric]
            poses = [(one, pose_of(one.rotation, one.translation), number) for one, number in moved]
            self._detections.publish(detections_3d(poses, header))

    def _transforms(self, shown: _Shown, header: Header) -> list[TransformStamped]:
        alignment, name = shown.alignment, f"{shown.alignment.category}_{shown.found.number}"
        frames: list[tuple[str, tuple[Any, Any]]] = [(name, (alignment.rotation, alignment.translation))]
        wanted = {key.strip() for key in shown.found.by.parameters.tf_keypoints.split(",")}
        for index, key in enumerate(alignment.keypoint_names):
            if (key in wanted or "all" in wanted) and bool(alignment.keypoints_3d[index].isfinite().all()):
                frames.append((f"{name}/{key}", (alignment.rotation, alignment.keypoints_3d[index])))
        for grasp in self._grasps:
            found = grasp.pose(alignment)
            if found is not None:
                frames.append((f"{name}/{grasp.name}", found))
        return [transform_stamped(header, child, pose_of(*place)) for child, place in frames]

    def _grasp_poses(self, shown: _Shown, header: Header) -> PoseArray | None:
        poses = [grasp.pose(shown.alignment) for grasp in self._grasps]
        found = [pose_of(*pose) for pose in poses if pose is not None]
        return PoseArray(header=header, poses=found) if found else None


def _covariance(shown: _Shown, header: Header) -> PoseWithCovarianceStamped | None:
    return None if shown.uncertainty is None else messages.covariance_message(shown.alignment, header, shown.uncertainty)


def as_received(result: FrameResult, frame: SensorFrame) -> FrameResult:
    """The result with its pixels in the picture that was received."""
    if frame.undistortion is None:
        return result
    matches = result.matches
    if matches is not None:
        matches = replace(matches, points=frame.received(matches.points))
    alignment = replace(result.alignment, keypoints_2d=frame.received(result.alignment.keypoints_2d))
    return replace(result, alignment=alignment, matches=matches)
