"""Record what the node ``align`` publishes for the viewer of rerun (extra ``rerun``), images and keypoints over time."""
# python examples/ros_to_rerun.py out/run.rrd /camera/color/image_raw        (then: rerun out/run.rrd)

import sys
from typing import Any

import rclpy
import rerun as rr
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image  # type: ignore  # no types either

from semalign3d_ros.conversions import image_to_rgb
from semalign3d_ros.msg import SemanticKeypoints  # type: ignore  # colcon generates it, without types


class Recorder(Node):
    def __init__(self, image_topic: str) -> None:
        super().__init__("recorder")
        self.create_subscription(Image, image_topic, self.on_image, qos_profile_sensor_data)  # type: ignore
        self.create_subscription(SemanticKeypoints, "/semalign3d/keypoints", self.on_keypoints, qos_profile_sensor_data)  # type: ignore

    def on_image(self, message: Any) -> None:
        rr.set_time("stamp", duration=message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec)
        rr.log("image", rr.Image(image_to_rgb(message)))

    def on_keypoints(self, message: Any) -> None:
        rr.set_time("stamp", duration=message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec)
        names, places = [p.name for p in message.keypoints], [p.position for p in message.keypoints]
        rr.log("image/keypoints", rr.Points2D([[p.pixel.x, p.pixel.y] for p in message.keypoints], labels=names))
        rr.log("object/keypoints", rr.Points3D([[p.x, p.y, p.z] for p in places], labels=names))


if __name__ == "__main__":
    rr.init("semalign3d")
    rr.save(sys.argv[1])
    rclpy.init()
    rclpy.spin(Recorder(sys.argv[2]))
