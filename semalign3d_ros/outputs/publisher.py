"""The topics of the results. What other nodes would read as metres is published only where it is metres."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from semalign3d_core.pipeline import FrameResult
from semalign3d_ros.engine import Found
from semalign3d_ros.inputs.decoder import Problem, SensorFrame
from semalign3d_ros.msg import Correspondences, SemanticKeypoints
from semalign3d_ros.outputs import messages
from semalign3d_ros.outputs.overlay import overlay_message

UP_TO_SCALE = "_up_to_scale"  # ending of the frame of positions in an unknown unit


class ResultPublisher:
    """Publishes what was found in a frame; costly messages are made only while somebody listens."""

    def __init__(self, node: Node, problem: Problem) -> None:
        self._problem = problem

        def publisher(message_type: Any, topic: str) -> Publisher:
            options = QoSOverridingOptions.with_default_policies()
            return node.create_publisher(message_type, topic, 10, qos_overriding_options=options)

        self._keypoints = publisher(SemanticKeypoints, "keypoints")
        self._correspondences = publisher(Correspondences, "correspondences")
        self._overlay = publisher(Image, "overlay")
        self._metric: dict[Publisher, Callable[[FrameResult, Header], Any]] = {
            publisher(PoseStamped, "pose"): lambda result, header: messages.pose_message(result.alignment, header),
            publisher(PointCloud2, "points"): lambda result, header: messages.cloud_message(result.alignment, header),
            publisher(MarkerArray, "markers"): lambda result, header: messages.markers_message(result.alignment, header),
        }

    def publish(self, found: list[Found], frame: SensorFrame, header: Header, latency: float) -> None:
        """Publishes the objects of a frame, of which the first is the best; ``latency`` in seconds."""
        best = found[0]
        result, pipeline = as_received(best.result, frame), best.by.pipeline
        self._keypoints.publish(messages.keypoints_message(result.alignment, header, latency))
        if result.matches is not None and pipeline.demonstration is not None:
            self._correspondences.publish(messages.correspondences_message(pipeline.demonstration, result, header, latency))
        self._publish_metric(result, header, best.by.parameters.relative_outputs)
        if self._overlay.get_subscription_count():
            self._overlay.publish(overlay_message(pipeline, best.result, header))

    def _publish_metric(self, result: FrameResult, header: Header, relative_too: bool) -> None:
        wanted = {publisher: make for publisher, make in self._metric.items() if publisher.get_subscription_count()}
        if not result.alignment.found:
            wanted = {publisher: make for publisher, make in wanted.items() if publisher.msg_type is MarkerArray}  # clears the old ones
        if result.alignment.scale_kind != "metric":
            if wanted and not relative_too:
                topics = ", ".join(publisher.topic_name for publisher in wanted)
                text = f"nothing is published on {topics}; give metric depth, the parameter diameter, or relative_outputs"
                self._problem("scale: not known", text)
            if not relative_too:
                return
            header = Header(stamp=header.stamp, frame_id=header.frame_id + UP_TO_SCALE)
        for publisher, make in wanted.items():
            publisher.publish(make(result, header))


def as_received(result: FrameResult, frame: SensorFrame) -> FrameResult:
    """The result with its pixels in the picture that was received."""
    if frame.undistortion is None:
        return result
    matches = result.matches
    if matches is not None:
        matches = replace(matches, points=frame.received(matches.points))
    alignment = replace(result.alignment, keypoints_2d=frame.received(result.alignment.keypoints_2d))
    return replace(result, alignment=alignment, matches=matches)
