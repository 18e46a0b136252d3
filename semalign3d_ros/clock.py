"""The clock by which a node measures ages, latency and patience."""

import threading
import time
from collections.abc import Callable

from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.node import Node

STILL = 1.0  # seconds after which a simulated clock that does not go on counts as standing still


class NodeClock:
    """Seconds that only go forward: those of ``/clock`` while the node has ``use_sim_time``, else those of the machine.

    While ``/clock`` stands still, the machine's seconds count: a recording that has ended or pauses keeps no image waiting.

    restarted: called when the time goes back (a recording begins again) or another clock counts
    """

    def __init__(self, node: Node, restarted: Callable[[], None]) -> None:
        self._clock, self._lock = node.get_clock(), threading.Lock()
        self._total, self._ticked, self._ros = 0.0, time.monotonic(), self.ros_time()
        self._granted = 0.0  # seconds of the machine that were counted since the last tick
        self._restarted = restarted
        backward = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True)
        self._jumps = self._clock.create_jump_callback(backward, post_callback=lambda _: self._restart())

    def __call__(self) -> float:
        """Seconds since some moment."""
        if not self.simulated:
            return time.monotonic()
        with self._lock:
            now, ros = time.monotonic(), self.ros_time()
            if ros != self._ros:
                self._total += max(ros - self._ros - self._granted, 0.0)
                self._ros, self._ticked, self._granted = ros, now, 0.0
            beyond = now - self._ticked - STILL
            if beyond > self._granted:
                self._total += beyond - self._granted
                self._granted = beyond
            return self._total

    @property
    def simulated(self) -> bool:
        """Whether ``/clock`` counts."""
        return bool(getattr(self._clock, "ros_time_is_active", False))

    def ros_time(self) -> float:
        """The time of ROS in seconds, which stamps are measured by."""
        return 1e-9 * self._clock.now().nanoseconds

    def condition(self) -> dict[str, str]:
        """{kind: text} if the simulated clock is of no use."""
        self()
        standing = time.monotonic() - self._ticked
        if not self.simulated or standing <= STILL:
            return {}
        if self._ros == 0:
            return {"clock: silent": "use_sim_time is set and nothing came on /clock; start the simulation, or play the bag with --clock"}
        return {"clock: stands still": f"/clock has said {self._ros:.3f} s for {standing:.0f} s; patience counts in seconds of the machine"}

    def close(self) -> None:
        """Lets go of the node's clock."""
        self._jumps.unregister()

    def _restart(self):
        with self._lock:
            self._ros, self._ticked, self._granted = self.ros_time(), time.monotonic(), 0.0
        self._restarted()
