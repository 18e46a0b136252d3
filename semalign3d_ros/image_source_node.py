"""The node ``image_source``: publishes a folder of images, a video file, a webcam or a recorded bag as a camera would."""

import threading
import time
import traceback
from typing import Any

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.utilities import try_shutdown
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from semalign3d_core.runtime.errors import SemAlign3DError
from semalign3d_ros.diagnostics import Diagnostics
from semalign3d_ros.msg import SemanticKeypoints
from semalign3d_ros.parameters import ImageSourceParameters, declare
from semalign3d_ros.process import spin
from semalign3d_ros.sources.open import as_transport, open_source

TRANSPORTS = {"raw": ("", Image), "compressed": ("/compressed", CompressedImage)}


class ImageSourceNode(Node):
    """See the module. Ends with exit code 0 after the last image, unless told to loop."""

    exit_code = 0

    def __init__(self, **options: Any) -> None:
        super().__init__("image_source", namespace="semalign3d", **options)
        self.parameters = declare(self, ImageSourceParameters)
        self._diagnostics = Diagnostics(self, lambda: {"images published": self._count})
        self._count, self._closed, self._answered = 0, threading.Event(), threading.Condition()
        self._last_answer = None
        self._source = open_source(self.parameters, self._diagnostics.problem)
        suffix, message_type = TRANSPORTS[self.parameters.image_transport]
        self._publishers_by_role = {"image": self._publisher(message_type, self.resolve_topic_name("image") + suffix)}
        for role, partner_type in (("camera_info", CameraInfo), ("depth", Image)):
            if role in self._source.roles:  # a topic without messages would be waited for
                self._publishers_by_role[role] = self._publisher(partner_type, role)
        if self.parameters.wait_for:
            self.create_subscription(SemanticKeypoints, self.parameters.wait_for, self._on_answer, 10)
        self._worker = threading.Thread(target=self._run, name="image source")
        self._worker.start()

    def close(self) -> None:
        """Stops publishing and ends the node."""
        self._closed.set()
        with self._answered:
            self._answered.notify_all()
        self._worker.join()
        self.destroy_node()

    def _publisher(self, message_type, topic):
        return self.create_publisher(message_type, topic, 10, qos_overriding_options=QoSOverridingOptions.with_default_policies())

    def _on_answer(self, message):
        with self._answered:
            self._last_answer = message.header.stamp
            self._answered.notify_all()

    def _run(self):
        try:
            self._play()
        except SemAlign3DError as error:
            self.get_logger().error(str(error))
            self.exit_code = 1
        except Exception:
            if not self.context.ok():
                return  # shut down while publishing: rclpy has several errors for that
            self.get_logger().error(traceback.format_exc())  # without its thread the node would wait for ever
            self.exit_code = 1
        try_shutdown()

    def _play(self):
        images = self._publishers_by_role["image"]
        while images.get_subscription_count() < self.parameters.subscribers and not self._closed.wait(0.05):
            pass
        first = True
        while not self._closed.is_set() and (first or self.parameters.loop):
            first, begin = False, time.monotonic()
            for index, moment in enumerate(self._source):
                due = index / self.parameters.rate if self.parameters.rate > 0 else moment.time
                if self._closed.wait(0 if due is None else max(begin + due - time.monotonic(), 0)):
                    return
                self._publish(moment)
        if not self._closed.is_set():
            images.wait_for_all_acked(Duration(seconds=5.0))  # the last image is on its way

    def _publish(self, moment):
        now = self.get_clock().now().to_msg()
        for role, message in moment.messages.items():
            if message.header.stamp.sec == 0 and message.header.stamp.nanosec == 0:
                message.header.stamp, message.header.frame_id = now, self.parameters.frame_id
            if role == "image":
                message = as_transport(message, self.parameters.image_transport)
            self._publishers_by_role[role].publish(message)
        self._count += 1
        if self.parameters.wait_for:
            self._wait_for_answer(moment.messages["image"].header.stamp)

    def _wait_for_answer(self, stamp):
        with self._answered:
            timeout = self.parameters.wait_timeout
            done = self._answered.wait_for(lambda: self._last_answer == stamp or self._closed.is_set(), timeout)
        if not done:
            self._diagnostics.problem("answer: none", f"no answer on {self.parameters.wait_for} within {timeout} s; going on")


def main(arguments: list[str] | None = None) -> int:
    """Runs the node; see :func:`semalign3d_ros.process.run_node`."""
    return spin(arguments, ImageSourceNode)
