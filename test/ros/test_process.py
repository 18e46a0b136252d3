"""How a node's process ends."""

import subprocess
import sys

import pytest

NODE = """
import sys
import rclpy
from rclpy.node import Node
from semalign3d_ros.process import spin

class Ends(Node):
    exit_code = 0

    def __init__(self):
        super().__init__("ends")
        self.create_timer(0.01, self.tick)

    def tick(self):
        if sys.argv[1] == "shut down":
            rclpy.shutdown()
        raise RuntimeError("torn down")

    def close(self):
        self.destroy_node()

sys.exit(spin(None, Ends))
"""


@pytest.mark.parametrize("ending, code", [("shut down", 0), ("broken", 1)])
def test_errors_of_a_callback_count_unless_the_node_was_shut_down_in_it(ending, code):
    ended = subprocess.run([sys.executable, "-c", NODE, ending], capture_output=True, text=True, timeout=60)
    assert ended.returncode == code and ("torn down" in ended.stderr) == bool(code), ended.stderr
