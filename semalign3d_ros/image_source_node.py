"""The node ``image_source``: publishes a folder of images, a video file, a webcam or a recorded bag as a camera would."""

import threading
import time
import traceback
from typing import Any

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.time import Time
from rclpy.utilities import try_shutdown
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from semalign3d_core.runtime.errors import InputError, SemAlign3DError
from semalign3d_ros.declared import LiveParameters, declare
from semalign3d_ros.diagnostics import Diagnostics
from semalign3d_ros.inputs.transforms import TF, TF_STATIC, tf_messages
from semalign3d_ros.msg import SemanticKeypoints
from semalign3d_ros.process import spin
from semalign3d_ros.sources.moments import Moment
from semalign3d_ros.sources.open import as_transport, open_source
from semalign3d_ros.sources.parameters import ImageSourceParameters

TRANSPORTS = {"raw": ("", Image), "compressed": ("/compressed", CompressedImage)}
TICK = 0.01  # seconds between two messages on /clock


class ImageSourceNode(Node):
    """See the module. Ends with exit code 0 after the last image, unless told to loop."""

    exit_code = 0

    def __init__(self, **options: Any) -> None:
        super().__init__("image_source", namespace="semalign3d", **options)
        self.parameters = declare(self, ImageSourceParameters)
        self._diagnostics = Diagnostics(self, lambda: {"images published": self._count})
        self._count, self._answered, self._last_answer = 0, threading.Condition(), None
        self._closed, self._interrupted = False, threading.Event()  # by the end, or by a leap to another place
        self._source = open_source(self.parameters, self._diagnostics.problem)
        self._publishers_by_role = self._make_publishers()
        self._ticks = self.create_publisher(Clock, "/clock", 10) if self.parameters.clock else None
        self._epoch = time.time_ns() if self._source.epoch is None else self._source.epoch
        self._shown = 0.0  # what /clock said last, in seconds after the epoch
        if self.parameters.wait_for:
            self.create_subscription(SemanticKeypoints, self.parameters.wait_for, self._on_answer, 10)
        self._live = LiveParameters(self, self.parameters, lambda parameters: parameters, self._on_change)
        self._worker = threading.Thread(target=self._run, name="image source")
        self._worker.start()

    def close(self) -> None:
        """Stops publishing and ends the node."""
        self._closed = True
        self._interrupted.set()
        with self._answered:
            self._answered.notify_all()
        self._worker.join()
        self.destroy_node()

    def _make_publishers(self):
        def publisher(kind, topic, qos=10):
            return self.create_publisher(kind, topic, qos, qos_overriding_options=QoSOverridingOptions.with_default_policies())

        suffix, image_type = TRANSPORTS[self.parameters.image_transport]
        made = {"image": publisher(image_type, self.resolve_topic_name("image") + suffix)}
        for role, kind in (("camera_info", CameraInfo), ("depth", Image), ("depth_camera_info", CameraInfo), (TF, tf_messages())):
            if role in self._source.roles:  # a topic without messages would be waited for
                made[role] = publisher(kind, role)
        if TF_STATIC in self._source.roles:
            made[TF_STATIC] = publisher(tf_messages(), TF_STATIC, QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL))
        return made

    def _on_answer(self, message):
        with self._answered:
            self._last_answer = message.header.stamp
            self._answered.notify_all()

    def _on_change(self, parameters):
        leap = parameters.start != self.parameters.start
        self.parameters = parameters
        if leap:
            self._interrupted.set()

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
        while images.get_subscription_count() < self.parameters.subscribers and not self._closed:
            self._interrupted.wait(0.05)
        while not self._closed:
            self._interrupted.clear()
            if self._play_once(self.parameters.start) and not self.parameters.loop:
                break
        if not self._closed:
            images.wait_for_all_acked(Duration(seconds=5.0))  # the last image is on its way

    def _play_once(self, start: float) -> bool:
        """Publishes everything from ``start`` on; False if it was interrupted."""
        begin, first, index, due = time.monotonic(), 0.0, -1, None
        for index, moment in enumerate(self._source.moments(start)):
            if index == 0:
                first = self._shown = start if moment.time is None else moment.time
            if moment.time is not None:
                due = begin + (index / self.parameters.rate if self.parameters.rate > 0 else moment.time - first)
            if self._closed or not self._wait(due, moment.time):
                return False
            self._publish(moment)
        if index < 0:
            raise InputError(f"{self.parameters.source} holds no image after {start:g} s; set start to an earlier one")
        return True

    def _wait(self, due: float | None, until: float | None) -> bool:
        """Waits for the moment ``due``, while /clock goes on to ``until``; False if it was interrupted."""
        begin, before = time.monotonic(), self._shown
        while due is not None and (left := due - time.monotonic()) > 0:
            if self._interrupted.wait(min(left, TICK) if self._ticks else left):
                return False
            if self._ticks and until is not None:
                self._show(before + (until - before) * min((time.monotonic() - begin) / (due - begin), 1.0))
        self._show(time.time() - 1e-9 * self._epoch if until is None else until)
        return not self._interrupted.is_set()

    def _show(self, seconds):
        """Sets the clock to that many seconds after the epoch."""
        self._shown = seconds
        if self._ticks:
            self._ticks.publish(Clock(clock=self._now()))

    def _now(self):
        return Time(nanoseconds=self._epoch + round(self._shown * 1e9)).to_msg() if self._ticks else self.get_clock().now().to_msg()

    def _publish(self, moment: Moment) -> None:
        now = self._now()
        for role, message in moment.messages.items():
            if role not in (TF, TF_STATIC) and message.header.stamp.sec == 0 and message.header.stamp.nanosec == 0:
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
            done = self._answered.wait_for(lambda: self._last_answer == stamp or self._closed, timeout)
        if not done:
            self._diagnostics.problem("answer: none", f"no answer on {self.parameters.wait_for} within {timeout} s; going on")


def main(arguments: list[str] | None = None) -> int:
    """Runs the node; see :func:`semalign3d_ros.process.run_node`."""
    return spin(arguments, ImageSourceNode)
