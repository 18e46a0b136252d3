"""The subscribers in examples/ hear the messages of the node's kind."""

import importlib.util
import sys
import time

import numpy as np
import pytest
from ros_graph import ROOT, Listener, NodeProcess
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from semalign3d_ros.conversions import array_to_image
from semalign3d_ros.msg import SemanticKeypoint, SemanticKeypoints


def test_the_example_hears_keypoints(tmp_path):
    process = NodeProcess([sys.executable, "-u", str(ROOT / "examples" / "ros_subscriber.py"), "rim"], [], tmp_path / "log")
    talker = Listener("talker")
    try:
        publisher = talker.publisher(SemanticKeypoints, "keypoints")
        message = SemanticKeypoints(found=True, keypoints=[SemanticKeypoint(name="rim", confidence=0.5), SemanticKeypoint(name="base")])
        message.keypoints[0].position.z = 1.25

        def heard():
            publisher.publish(message)
            time.sleep(0.1)
            return "rim: 0.000 0.000 1.250, confidence 0.50" in process.output()

        talker.wait(heard, "waited for the example's line", process)
        assert "base" not in process.output()
    finally:
        talker.close()
        process.stop()


@pytest.mark.skipif(importlib.util.find_spec("rerun") is None, reason="rerun-sdk is not installed (extra rerun)")
def test_the_example_records_for_rerun(tmp_path):
    file = tmp_path / "run.rrd"
    process = NodeProcess(
        [sys.executable, "-u", str(ROOT / "examples" / "ros_to_rerun.py"), str(file), "/semalign3d/image"], [], tmp_path / "log"
    )
    talker = Listener("talker")
    try:
        images, keypoints = talker.publisher(Image, "image"), talker.publisher(SemanticKeypoints, "keypoints")
        picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)

        def recorded():
            images.publish(array_to_image(picture, "rgb8", Header()))
            keypoints.publish(SemanticKeypoints(found=True, keypoints=[SemanticKeypoint(name="rim")]))
            time.sleep(0.1)
            return images.get_subscription_count() and file.is_file() and file.stat().st_size > 3 * picture.size

        talker.wait(recorded, "waited for a recording that grows", process)
    finally:
        talker.close()
        process.stop()
