"""Listen to the keypoints of the node ``align`` and do something with one of them.

ros2 launch semalign3d_ros align.launch.py category:=mug image:=/camera/color/image_raw
python examples/ros_subscriber.py handle_outer
"""

import sys
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data

from semalign3d_ros.msg import SemanticKeypoints  # type: ignore  # colcon generates it, without types


class KeypointListener(Node):
    """Prints where one keypoint is."""

    def __init__(self, wanted: str) -> None:
        super().__init__("keypoint_listener")
        self.wanted = wanted
        self.create_subscription(SemanticKeypoints, "/semalign3d/keypoints", self.hear, qos_profile_sensor_data)  # type: ignore

    def hear(self, message: Any) -> None:
        for keypoint in message.keypoints:
            if message.found and keypoint.name == self.wanted:
                place = keypoint.position
                print(f"{keypoint.name}: {place.x:.3f} {place.y:.3f} {place.z:.3f}, confidence {keypoint.confidence:.2f}", flush=True)


def main(wanted: str = "handle_outer") -> None:
    rclpy.init()
    rclpy.spin(KeypointListener(wanted))


if __name__ == "__main__":
    main(*sys.argv[1:2])
