"""How a node's process ends."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from semalign3d_ros.process import answered

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
        self.ticks = getattr(self, "ticks", 0) + 1
        if sys.argv[1] == "shut down" or self.ticks == 3:
            rclpy.shutdown()
        raise RuntimeError("torn down")

    def close(self):
        self.destroy_node()

sys.exit(spin(None, Ends))
"""

STUCK = """
import sys
import time
from rclpy.node import Node
from semalign3d_ros import process

class Hangs(Node):
    exit_code = 0

    def __init__(self):
        super().__init__("hangs")
        self.create_timer(0.01, self.tick)

    def tick(self):
        if sys.argv[1] == "hang":
            time.sleep(600)
        self.ticks = getattr(self, "ticks", 0) + 1
        if sys.argv[1] == "load" and self.ticks == 1:
            process.take_time()
            time.sleep(3)
        if self.ticks == 300:  # three seconds: longer than it may hang
            raise KeyboardInterrupt

    def close(self):
        self.destroy_node()

process.STUCK = 2.0
sys.exit(process.spin(None, Hangs))
"""


@pytest.mark.parametrize("does, code", [("hang", 1), ("work", 0), ("load", 0)])
def test_a_node_that_hangs_ends_and_says_where(does, code):
    ended = subprocess.run([sys.executable, "-c", STUCK, does], capture_output=True, text=True, timeout=60)
    assert ended.returncode == code and ("in tick" in ended.stderr) == (does == "hang"), ended.stderr


@pytest.mark.parametrize("ending, logged", [("shut down", 0), ("broken", 2)])
def test_errors_of_a_callback_are_logged_and_end_no_node(ending, logged):
    ended = subprocess.run([sys.executable, "-c", NODE, ending], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0 and ended.stderr.count("RuntimeError: torn down") == logged, ended.stderr


def test_a_service_that_fails_answers_why():
    def fails(request, response):
        raise OSError(36, "File name too long")

    response = answered(fails)(None, SimpleNamespace(success=True, message=""))
    assert response.success is False and response.message == "OSError: [Errno 36] File name too long"
