"""The node ``align``: camera images in; named keypoints, correspondences to a demonstration image and pose out.

It reads parameters into the core's configuration, converts messages in, calls the pipeline, and converts results out.
Callbacks only store messages; one worker thread takes the newest frame.
"""

import threading
import time
import traceback
from dataclasses import replace
from typing import Any

import torch
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from semalign3d_core.perception.evidence import ImageInput
from semalign3d_core.pipeline import create_pipeline
from semalign3d_core.runtime.errors import InputError, SemAlign3DError
from semalign3d_ros import conversions, messages
from semalign3d_ros.diagnostics import Diagnostics
from semalign3d_ros.frames import FrameSlot
from semalign3d_ros.msg import Correspondences, SemanticKeypoints
from semalign3d_ros.overlay import overlay_message
from semalign3d_ros.parameters import AlignParameters, declare
from semalign3d_ros.process import answered, spin
from semalign3d_ros.srv import SetCategory

IMAGE_TRANSPORTS = {"raw": Image, "compressed": CompressedImage}
PARTNERS = {"camera_info": CameraInfo, "depth": Image, "mask": Image}
SENSOR_QOS = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)


class AlignNode(Node):
    """See the module; all topics are relative, in the namespace ``semalign3d`` unless remapped."""

    exit_code = 0

    def __init__(self, **options: Any) -> None:
        super().__init__("align", namespace="semalign3d", **options)
        self.parameters = declare(self, AlignParameters)
        if self.parameters.image_transport not in IMAGE_TRANSPORTS:
            raise InputError(f"image_transport is {self.parameters.image_transport!r}: choose one of {', '.join(IMAGE_TRANSPORTS)}")
        if self.parameters.threads > 0:
            torch.set_num_threads(self.parameters.threads)
        self._processed, self._latency, self._previous = 0, float("nan"), None
        self._slot = FrameSlot(self.parameters.slop, self.parameters.patience, timeless=("camera_info",))
        self._diagnostics = Diagnostics(self, self._values)
        self._pipeline = self._create_pipeline(self.parameters)
        self._create_publishers()
        self._create_subscriptions()
        self.create_service(SetCategory, "~/set_category", answered(self._on_set_category))
        self.create_service(Trigger, "~/reset", answered(self._on_reset))
        self._worker = threading.Thread(target=self._work, name="align")
        self._worker.start()
        self.get_logger().info(f"looking for: {self._pipeline.model.category} in {self._image_topic}")

    def close(self) -> None:
        """Ends the worker after the frame it is at, and the node."""
        self._slot.close()
        self._worker.join()
        self.destroy_node()

    # Set-up

    def _create_pipeline(self, parameters):
        pipeline = create_pipeline(parameters)
        demonstration, shown = pipeline.demonstration, pipeline.demonstration_alignment
        if demonstration is not None and shown is not None and not shown.found:
            self._diagnostics.problem(
                "demonstration: object not found",
                f"no {pipeline.model.category} was recognised in {demonstration.image.name} (confidence {shown.confidence:.2f}); "
                "correspondences will not be reliable, choose a clearer picture",
            )
        return pipeline

    def _create_publishers(self):
        def publisher(message_type, topic):
            return self.create_publisher(message_type, topic, 10, qos_overriding_options=QoSOverridingOptions.with_default_policies())

        self._keypoints = publisher(SemanticKeypoints, "keypoints")
        self._correspondences = publisher(Correspondences, "correspondences")
        self._pose = publisher(PoseStamped, "pose")
        # Costly ones are made only while somebody listens.
        self._optional = {
            publisher(Image, "overlay"): lambda result, header: overlay_message(self._pipeline, result, header),
            publisher(PointCloud2, "points"): lambda result, header: messages.cloud_message(result.alignment, header),
            publisher(MarkerArray, "markers"): lambda result, header: messages.markers_message(result.alignment, header),
        }

    def _create_subscriptions(self):
        def subscribe(message_type, topic, callback):
            options = QoSOverridingOptions.with_default_policies()
            self.create_subscription(message_type, topic, callback, SENSOR_QOS, qos_overriding_options=options)

        self._image_topic = self.resolve_topic_name("image")
        if self.parameters.image_transport == "compressed":
            self._image_topic += "/compressed"  # after resolving, so that remapping "image" suffices
        subscribe(IMAGE_TRANSPORTS[self.parameters.image_transport], self._image_topic, self._on_image)
        for topic, message_type in PARTNERS.items():
            subscribe(message_type, topic, lambda message, topic=topic: self._slot.put_partner(topic, _seconds(message), message))

    # Callbacks of the executor's thread

    def _on_image(self, message):
        wanted = [topic for topic in PARTNERS if self.count_publishers(topic)]
        self._slot.put_image(_seconds(message), message, wanted)

    def _on_set_category(self, request, response):
        try:
            pipeline = self._create_pipeline(replace(self.parameters, category=request.category, demonstration=""))
        except SemAlign3DError as error:
            response.success, response.message = False, str(error)
        else:
            self._pipeline, self._previous = pipeline, None
            response.success, response.message = True, f"looking for: {pipeline.model.category}; without demonstration"
        return response

    def _on_reset(self, request, response):
        self._previous = None
        response.success, response.message = True, "the next image is searched anew"
        return response

    def _values(self):
        return {
            "category": self._pipeline.model.category,
            "images received": self._slot.received,
            "images processed": self._processed,
            "images dropped": self._slot.dropped,
            "latency of the last image in ms": round(1000 * self._latency, 1),
        }

    # Worker thread

    def _work(self):
        while (frame := self._slot.take()) is not None:
            try:
                self._process(frame)
            except conversions.BadMessage as error:
                self._diagnostics.problem(f"image: {error.kind}", f"{self._image_topic}: {error}")
            except SemAlign3DError as error:
                self._diagnostics.problem("alignment: not possible", error)
            except Exception as error:
                if not self.context.ok():  # shut down while publishing
                    return
                self._diagnostics.problem(f"internal error: {type(error).__name__}", traceback.format_exc())

    def _process(self, frame):
        pipeline = self._pipeline
        compressed = self.parameters.image_transport == "compressed"
        rgb = conversions.compressed_to_rgb(frame.image) if compressed else conversions.image_to_rgb(frame.image)
        image = ImageInput(rgb, self._image_topic)
        for topic in frame.missing:
            self._diagnostics.problem(
                f"{topic}: none for the image",
                f"nothing on {self.resolve_topic_name(topic)} is within {self.parameters.slop} s of the image; going on without",
            )
        result = pipeline.process(
            image,
            camera=self._partner(frame, "camera_info", lambda message: conversions.camera_from_info(message, image.height, image.width)),
            depth=self._partner(frame, "depth", lambda message: conversions.depth_from_image(message, image.height, image.width)),
            mask=self._partner(frame, "mask", lambda message: conversions.mask_from_image(message, image.height, image.width)),
            previous=self._previous,
        )
        if pipeline is not self._pipeline:  # another category was set meanwhile
            return
        self._previous = result.alignment if self.parameters.warm_start and result.alignment.found else None
        self._publish(pipeline, result, frame)

    def _partner(self, frame, topic, convert):
        """The converted partner of an image, or None when there is none or it cannot be used."""
        if topic not in frame.partners:
            return None
        try:
            return convert(frame.partners[topic])
        except conversions.BadMessage as error:
            self._diagnostics.problem(f"{topic}: {error.kind}", f"{self.resolve_topic_name(topic)}: {error}; going on without")
            return None

    def _publish(self, pipeline, result, frame):
        header = frame.image.header
        self._latency = time.monotonic() - frame.arrival
        self._keypoints.publish(messages.keypoints_message(result.alignment, header, self._latency))
        if result.matches is not None:
            self._correspondences.publish(messages.correspondences_message(pipeline.demonstration, result, header, self._latency))
        if result.alignment.found:
            self._pose.publish(messages.pose_message(result.alignment, header))
        for publisher, convert in self._optional.items():
            if publisher.get_subscription_count():
                publisher.publish(convert(result, header))
        self._processed += 1


def _seconds(message):
    stamp = message.header.stamp
    return stamp.sec + 1e-9 * stamp.nanosec


def main(arguments: list[str] | None = None) -> int:
    """Runs the node; see :func:`semalign3d_ros.process.run_node`."""
    return spin(arguments, AlignNode)
