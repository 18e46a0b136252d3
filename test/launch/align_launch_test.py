"""The launch file starts a node that answers an image; for ``colcon test`` on a ROS installation (launch_testing)."""

import time
import unittest
from array import array

import launch
import launch_testing.actions
import rclpy
from ament_index_python.packages import get_package_share_directory
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from sensor_msgs.msg import Image

from semalign3d_ros.msg import SemanticKeypoints

SECONDS = 120


def generate_test_description():
    """The launch file as a user starts it, and the test as soon as it runs."""
    path = f"{get_package_share_directory('semalign3d_ros')}/launch/align.launch.py"
    started = IncludeLaunchDescription(PythonLaunchDescriptionSource(path), launch_arguments={"category": "bottle"}.items())
    return launch.LaunchDescription([started, launch_testing.actions.ReadyToTest()])


class TestAlign(unittest.TestCase):
    """Asks the running node."""

    def test_an_image_is_answered(self):
        """One answer carries the stamp of an image that was sent."""
        rclpy.init()
        node, answers = rclpy.create_node("asker", namespace="semalign3d"), []
        images = node.create_publisher(Image, "image", 10)
        node.create_subscription(SemanticKeypoints, "keypoints", answers.append, 10)
        end, image = time.monotonic() + SECONDS, Image(height=120, width=160, encoding="rgb8", step=480, data=array("B", bytes(57600)))
        while not answers and time.monotonic() < end:
            image.header.stamp = node.get_clock().now().to_msg()
            images.publish(image)
            rclpy.spin_once(node, timeout_sec=0.5)
        node.destroy_node()
        rclpy.shutdown()
        self.assertTrue(answers)
        self.assertEqual(answers[0].category, "bottle")
