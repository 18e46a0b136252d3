"""Real nodes in processes of their own, and a listener that waits with deadlines instead of sleeping.

For the demo, the benchmarks and the tests of the nodes.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import rclpy
from builtin_interfaces.msg import Time
from rclpy.executors import SingleThreadedExecutor
from std_msgs.msg import Header

from semalign3d_ros.conversions import array_to_image
from semalign3d_ros.inputs.receiver import TRANSPORTS
from semalign3d_ros.msg import SemanticKeypoints
from semalign3d_ros.sources.open import as_transport

ROOT = Path(__file__).parents[1]
RELIABLE = [f"qos_overrides./semalign3d/{topic}.subscription.reliability:=reliable" for topic in ("image", "camera_info", "depth", "mask")]
DEADLINE = 180.0  # seconds; generous, because nothing waits for it unless something is broken


def other_domain():
    """A ROS domain beside the one of this test run, for a node that must not hear the other tests."""
    return int(os.environ["ROS_DOMAIN_ID"]) % 101 + 1


def node_environment(domain=None):
    """The environment of a node: this one, with the sources in front of what is installed."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return dict(os.environ, PYTHONPATH=path, ROS_DOMAIN_ID=str(domain or os.environ["ROS_DOMAIN_ID"]))


class NodeProcess:
    """A node in a process of its own; ``parameters`` are ``name:=value``. Everything it prints is in ``output()``."""

    def __init__(self, command, parameters, log, remap=(), domain=None):
        # an empty text is spelled ''
        parameters = [parameter + "''" if parameter.endswith(":=") else parameter for parameter in parameters]
        arguments = [part for parameter in parameters for part in ("-p", parameter)] + [part for rule in remap for part in ("-r", rule)]
        self._log = log
        with open(log, "w") as stream:
            self.process = subprocess.Popen(
                [*command, "--ros-args", *arguments],
                stdout=stream, stderr=subprocess.STDOUT, env=node_environment(domain), cwd=log.parent,
            )  # fmt: skip

    def output(self):
        return self._log.read_text()

    def stop(self, number=signal.SIGINT, timeout=DEADLINE):
        """Sends a signal, and returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the node did not end after signal {number}:\n{self.output()}") from None


def executable(name):
    """Command of a node as it is shipped."""
    return [sys.executable, str(ROOT / "scripts" / name)]


class Listener:
    """A node of the test: publishes and collects messages, and waits until something has become true."""

    def __init__(self, name, domain=None):
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node(name, context=self.context, namespace="semalign3d")
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)

    def collect(self, message_type, topic):
        """A list that grows with every message of the topic."""
        messages = []
        self.subscribe(message_type, topic, messages.append)
        return messages

    def subscribe(self, message_type, topic, callback):
        """Calls ``callback`` with every message of the topic."""
        self.node.create_subscription(message_type, topic, callback, 100)

    def publisher(self, message_type, topic):
        return self.node.create_publisher(message_type, topic, 10)

    def wait(self, condition, what, process=None, timeout=DEADLINE):
        """Spins until ``condition()``; fails with ``what`` and the output of the process after the deadline."""
        end = time.monotonic() + timeout
        while not condition():
            dead = process is not None and process.process.poll() is not None
            if dead or time.monotonic() > end:
                output = "" if process is None else process.output()
                raise AssertionError(f"{what} {'although the node has ended' if dead else 'in vain'}:\n{output}")
            self.executor.spin_once(timeout_sec=0.02)

    def call(self, service_type, name, request, process=None):
        """Calls a service and returns its response."""
        client = self.node.create_client(service_type, name)
        self.wait(client.service_is_ready, f"waited for the service {name}", process)
        future = client.call_async(request)
        self.wait(future.done, f"waited for an answer of {name}", process)
        return future.result()

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


class AlignSession:
    """A running node align that is asked picture by picture; a context manager."""

    def __init__(self, parameters, log, command=None, transport="raw"):
        self.node = NodeProcess(command or executable("align_node"), [*RELIABLE, f"image_transport:={transport}", *parameters], log)
        self.listener, self._asked, self._answers, self._transport = Listener("asker"), 0, {}, transport
        ending, kind = TRANSPORTS[transport]
        self.images = self.listener.publisher(kind, f"image{ending}")
        self.listener.subscribe(SemanticKeypoints, "keypoints", self._store)

    def __enter__(self):
        ready = [self.images.get_subscription_count, lambda: self.listener.node.count_publishers("keypoints")]
        try:
            self.listener.wait(lambda: all(count() for count in ready), "waited for the node align", self.node)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.node.stop()
        self.listener.close()

    def _store(self, message):
        self._answers[message.header.stamp.nanosec] = message

    def ask(self, rgb):
        """Publishes a picture and returns the SemanticKeypoints that answer it."""
        self._asked += 1
        header = Header(frame_id="camera", stamp=Time(sec=1, nanosec=self._asked))
        self.images.publish(as_transport(array_to_image(rgb, "rgb8", header), self._transport))
        self.listener.wait(lambda: self._asked in self._answers, "waited for keypoints", self.node)
        return self._answers.pop(self._asked)
