"""The subscriber in examples/ hears the messages of the node's kind."""

import sys
import time

from ros_graph import ROOT, Listener, NodeProcess

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
