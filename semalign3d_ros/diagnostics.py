"""What went wrong, and what is wrong: one log line per kind of problem, all of them counted and published on /diagnostics."""

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_msgs.msg import Header


class Diagnostics:
    """Counts problems and values of a node and publishes them once per second."""

    def __init__(self, node: Node, values: Callable[[], dict[str, Any]], conditions: Callable[[], dict[str, str]] = lambda: {}) -> None:
        """``values()`` gives a dictionary of further values to publish, ``conditions()`` {kind: text} of what lasts and is wrong."""
        self._node, self._values, self._conditions = node, values, conditions
        self._lasting: dict[str, str] = {}
        self._lock = threading.Lock()
        self._recent: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # also while a simulated clock stands still
        self._timer = node.create_timer(1.0, self.publish, clock=steady)

    def problem(self, kind: str, text: object) -> None:
        """Counts a problem; the first one of its kind is logged."""
        with self._lock:
            self._counts[kind] += 1
            self._recent[kind] = str(text)
            first = self._counts[kind] == 1
        if first:
            self._node.get_logger().warning(f"{kind}: {text} (further ones of this kind are only counted, see /diagnostics)")

    def publish(self) -> None:
        """Publishes the state: WARN while something lasts or there were new problems since the last time, else OK."""
        before, self._lasting = self._lasting, self._conditions()
        for kind in self._lasting.keys() - before.keys():
            self._node.get_logger().warning(f"{kind}: {self._lasting[kind]}")
        with self._lock:
            counts, recent, self._recent = dict(self._counts), self._recent, {}
        values = {**self._values(), **{f"problem: {kind}": count for kind, count in sorted(counts.items())}}
        values |= {f"condition: {kind}": text for kind, text in sorted(self._lasting.items())}
        wrong = recent | self._lasting
        status = DiagnosticStatus(
            level=DiagnosticStatus.WARN if wrong else DiagnosticStatus.OK,
            name=self._node.get_fully_qualified_name().lstrip("/"),
            message="; ".join(f"{kind}: {text}" for kind, text in wrong.items())
            or ("running" if values.get("enabled", True) else "images are ignored: call the service enable"),
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        self._publisher.publish(DiagnosticArray(header=Header(stamp=self._node.get_clock().now().to_msg()), status=[status]))
