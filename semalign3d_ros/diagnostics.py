"""What went wrong: one log line per kind of problem, all of them counted and published on /diagnostics."""

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from std_msgs.msg import Header


class Diagnostics:
    """Counts problems and values of a node and publishes them once per second."""

    def __init__(self, node: Node, values: Callable[[], dict[str, Any]]) -> None:
        """``values()`` gives a dictionary of further values to publish."""
        self._node, self._values = node, values
        self._lock = threading.Lock()
        self._recent: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._timer = node.create_timer(1.0, self.publish)

    def problem(self, kind: str, text: object) -> None:
        """Counts a problem; the first one of its kind is logged."""
        with self._lock:
            self._counts[kind] += 1
            self._recent[kind] = str(text)
            first = self._counts[kind] == 1
        if first:
            self._node.get_logger().warning(f"{kind}: {text} (further ones of this kind are only counted, see /diagnostics)")

    def publish(self) -> None:
        """Publishes the state: WARN while there were new problems since the last time, else OK."""
        with self._lock:
            counts, recent, self._recent = dict(self._counts), self._recent, {}
        values = {**self._values(), **{f"problem: {kind}": count for kind, count in sorted(counts.items())}}
        status = DiagnosticStatus(
            level=DiagnosticStatus.WARN if recent else DiagnosticStatus.OK,
            name=self._node.get_fully_qualified_name().lstrip("/"),
            message="; ".join(f"{kind}: {text}" for kind, text in recent.items()) or "running",
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        self._publisher.publish(DiagnosticArray(header=Header(stamp=self._node.get_clock().now().to_msg()), status=[status]))
