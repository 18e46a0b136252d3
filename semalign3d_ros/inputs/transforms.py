"""Where frames are: the tree of ``/tf`` and ``/tf_static``, asked at the moment of an image.

tf2's own buffer is part of a ROS installation only, this one needs nothing but the messages of tf2_msgs. Without those there is no TF.
"""

import math
import threading
import time as wall
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSProfile

from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.files import shown
from semalign3d_ros.conversions import seconds

TF, TF_STATIC = "/tf", "/tf_static"
HISTORY = 10.0  # seconds for which the places of a frame are kept
PLACES = 10_000  # of a frame that are kept at most
FRAMES = 2000  # frames that are kept at most; those unheard of for longest go first
UNIT = 0.05  # by which the length of a quaternion may differ from 1
QUEUE = 100


def tf_messages() -> Any:
    """The type TFMessage, or None where tf2_msgs is not installed (it is not on PyPI)."""
    try:
        from tf2_msgs.msg import TFMessage
    except ImportError:
        return None
    return TFMessage


class NoTransform(InputError):
    """TF does not say where a frame is; ``kind`` in a few words, ``late``: whether it may say so soon."""

    def __init__(self, kind: str, text: str, late: bool = False) -> None:
        super().__init__(text)
        self.kind, self.late = kind, late


@dataclass
class _Frame:
    """A frame in its parent: (time in seconds, x y z qx qy qz qw) in the order of the times; ``heard``: when the last one came."""

    parent: str
    static: bool
    places: list[tuple[float, tuple[float, ...]]] = field(default_factory=list)
    heard: float = 0.0


class TransformTree:
    """The frames; pure bookkeeping. See :class:`TransformListener` for threads and topics."""

    def __init__(self) -> None:
        self._frames: dict[str, _Frame] = {}

    def put(self, parent: str, child: str, time: float, place: tuple[float, ...], static: bool, now: float = 0.0) -> None:
        """The frame ``child`` was at ``place`` (x y z qx qy qz qw) in ``parent``; raises :class:`NoTransform` for what is no place."""
        parent, child = parent.strip("/"), child.strip("/")
        length = math.hypot(*place[3:])
        if not parent or not child or parent == child or not all(map(math.isfinite, place)) or abs(length - 1) > UNIT:
            text = f"{shown(child)!r} in {shown(parent)!r} is {place}, expected two names, finite numbers and a quaternion of length 1"
            raise NoTransform("broken transform", text)
        frame = self._frames.get(child)
        if frame is None or frame.parent != parent or frame.static != static:
            frame = self._frames[child] = _Frame(parent, static)
        frame.heard = now
        if static or (frame.places and time < frame.places[-1][0] - HISTORY):  # a recording began again
            frame.places.clear()
        index = bisect_left(frame.places, (time,))
        if index < len(frame.places) and frame.places[index][0] == time:
            frame.places[index] = time, place
        else:
            frame.places.insert(index, (time, place))
        while frame.places[0][0] < frame.places[-1][0] - HISTORY or len(frame.places) > PLACES:
            frame.places.pop(0)
        if len(self._frames) > FRAMES:
            del self._frames[min(self._frames, key=lambda name: (self._frames[name].static, self._frames[name].heard))]

    def forget(self) -> None:
        """The time has gone back: only static frames count on."""
        self._frames = {name: frame for name, frame in self._frames.items() if frame.static}

    def lookup(self, target: str, source: str, time: float, now: float = 0.0, patience: float = 0.0) -> np.ndarray:
        """(4, 4) from coordinates in ``source`` to coordinates in ``target`` at ``time`` in seconds; 0: the newest.

        Raises :class:`NoTransform`, which is ``late`` if the frame that is missing was heard of within ``patience``.
        """
        target, source = target.strip("/"), source.strip("/")
        up, down = self._way_up(source), self._way_up(target)
        shared = next((name for name in up if name in down), None)
        if shared is None:
            missing = [name for name in (source, target) if name not in self._known()]
            if missing:
                raise NoTransform("frame not known", f"TF does not know {' and '.join(repr(shown(name)) for name in missing)}")
            raise NoTransform("frames not connected", f"TF knows {target!r} and {source!r}, and no way between them")
        first, second = (
            self._along(way[: way.index(shared)], time, now, patience) for way in (up, down)
        )  # each from its frame to the shared one
        return np.linalg.inv(second) @ first

    def _known(self):
        return {*self._frames, *(frame.parent for frame in self._frames.values())}

    def _way_up(self, name):
        way = [name]
        while name in self._frames and (name := self._frames[name].parent) not in way:
            way.append(name)
        return way

    def _along(self, way, time, now, patience):
        matrix = np.eye(4)
        for name in way:
            matrix = self._at(name, time, now, patience) @ matrix
        return matrix

    def _at(self, name, time, now, patience):
        """(4, 4) of a frame in its parent."""
        from scipy.spatial.transform import Rotation, Slerp

        frame = self._frames[name]
        places, index = frame.places, 0
        if not frame.static:
            index = len(places) - 1 if time == 0 else bisect_left(places, (time,))
        if index == len(places) or (index == 0 and not frame.static and time not in (0, places[0][0])):
            side = "ends" if index else "begins"
            text = f"TF knows {name!r} in {frame.parent!r} from {places[0][0]:.3f} to {places[-1][0]:.3f} s, which {side}"
            apart = abs(time - places[-1 if index else 0][0])
            late = bool(index) and now - frame.heard <= patience
            raise NoTransform("not at this time", f"{text} {apart:.3f} s {'before' if index else 'after'} the image", late)
        moment, place = places[index]
        position, rotation = np.array(place[:3]), Rotation.from_quat(place[3:])
        if not frame.static and time not in (0, moment):
            before, other = places[index - 1]
            share = (time - before) / (moment - before)
            position = (1 - share) * np.array(other[:3]) + share * position
            rotation = Slerp([0, 1], Rotation.from_quat([other[3:], place[3:]]))(share)
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = rotation.as_matrix(), position
        return matrix


class TransformListener:
    """Listens to TF, where tf2_msgs is installed; ``problem(kind, text)`` is told of what is broken."""

    def __init__(self, node: Node, problem: Callable[[str, object], None]) -> None:
        self._tree, self._problem, self._changed = TransformTree(), problem, threading.Condition()
        message_type = tf_messages()
        self.available = message_type is not None
        if self.available:
            latched = QoSProfile(depth=QUEUE, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
            node.create_subscription(message_type, TF, lambda message: self._put(message, False), QUEUE)
            node.create_subscription(message_type, TF_STATIC, lambda message: self._put(message, True), latched)

    def forget(self) -> None:
        """See :meth:`TransformTree.forget`."""
        with self._changed:
            self._tree.forget()

    def lookup(self, target: str, source: str, time: float, patience: float) -> np.ndarray:
        """See :meth:`TransformTree.lookup`; waits up to ``patience`` seconds for what is late."""
        if not self.available:
            raise NoTransform("not installed", "TF needs the messages of tf2_msgs; install them: sudo apt install ros-jazzy-tf2-msgs")
        end = wall.monotonic() + patience
        with self._changed:
            while True:
                try:
                    return self._tree.lookup(target, source, time, wall.monotonic(), patience)
                except NoTransform as error:
                    left = end - wall.monotonic()
                    if not error.late or left <= 0:
                        raise
                self._changed.wait(left)

    def _put(self, message: Any, static: bool) -> None:
        now = wall.monotonic()
        with self._changed:
            for one in message.transforms:
                shift, turn, stamp = one.transform.translation, one.transform.rotation, one.header.stamp
                place = (shift.x, shift.y, shift.z, turn.x, turn.y, turn.z, turn.w)
                try:
                    self._tree.put(one.header.frame_id, one.child_frame_id, seconds(stamp), place, static, now)
                except NoTransform as error:
                    self._problem(f"tf: {error.kind}", error)
            self._changed.notify_all()
