"""Images together with the depth image, mask and camera_info of the same moment: the newest frame wins."""

import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

KEPT = 8  # messages of each topic that are kept for finding partners


@dataclass(frozen=True)
class Frame:
    """An image message, when it arrived (monotonic seconds), its partners by topic, and the wanted ones that never came."""

    image: Any
    arrival: float
    partners: dict = field(default_factory=dict)
    missing: tuple = ()


class FrameSlot:
    """Holds what arrives until a worker takes the newest complete frame; older images are dropped.

    slop:     largest difference in seconds between the stamps of an image and of its partners
    patience: seconds after which an image is handed out without the partners that did not come
    timeless: topics whose last message belongs to every image (camera_info)
    """

    def __init__(self, slop: float, patience: float, timeless: tuple[str, ...] = ()) -> None:
        self._slop, self._patience, self._timeless = slop, patience, timeless
        self._images: deque[tuple[float, float, Any]] = deque(maxlen=KEPT)
        self._partners: dict[str, deque[tuple[float, Any]]] = {}
        self._wanted: tuple[str, ...] = ()
        self._closed = False
        self._condition = threading.Condition()
        self.received = self.dropped = 0

    def put_image(self, stamp: float, message: Any, wanted: Iterable[str] = ()) -> None:
        """An image arrived; ``wanted`` names the topics that somebody publishes and it should be completed with."""
        with self._condition:
            self.received += 1
            self.dropped += len(self._images) == KEPT
            self._images.append((stamp, time.monotonic(), message))
            self._wanted = tuple(wanted)
            self._condition.notify()

    def put_partner(self, topic: str, stamp: float, message: Any) -> None:
        """A depth image, mask or camera_info arrived."""
        with self._condition:
            self._partners.setdefault(topic, deque(maxlen=1 if topic in self._timeless else KEPT)).append((stamp, message))
            self._condition.notify()

    def take(self) -> Frame | None:
        """Waits for the next :class:`Frame`; None once the slot is closed."""
        with self._condition:
            while not self._closed:
                frame = self._newest_complete() or self._newest_overdue()
                if frame is not None:
                    return frame
                self._condition.wait(timeout=self._patience / 4 if self._images else None)
            return None

    def close(self) -> None:
        """Ends all waiting."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def _newest_complete(self):
        for index in reversed(range(len(self._images))):
            stamp, arrival, message = self._images[index]
            partners = self._partners_of(stamp)
            if all(topic in partners for topic in self._wanted):
                return self._hand_out(index, Frame(message, arrival, partners))
        return None

    def _newest_overdue(self):
        for index in reversed(range(len(self._images))):
            stamp, arrival, message = self._images[index]
            if time.monotonic() - arrival > self._patience:
                partners = self._partners_of(stamp)
                missing = tuple(topic for topic in self._wanted if topic not in partners)
                return self._hand_out(index, Frame(message, arrival, partners, missing))
        return None

    def _partners_of(self, stamp):
        found = {}
        for topic, messages in self._partners.items():
            at, message = min(reversed(messages), key=lambda item: abs(item[0] - stamp))
            if topic in self._timeless or abs(at - stamp) <= self._slop:
                found[topic] = message
        return found

    def _hand_out(self, index, frame):
        for _ in range(index):
            self._images.popleft()
        self.dropped += index
        self._images.popleft()
        return frame
