"""Images together with the depth image, mask and camera_info of the same moment: the newest frame wins, and nothing starves it.

A partner is waited for while it is of use: somebody publishes it, and within the last :data:`TRUST` patiences or images one of its
messages fitted an image in time. One that is silent, too late or of other moments is named as a trouble and no longer waited for, until
it fits again.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

TRUST = 4  # patiences, and images, for which a partner is waited for although none of its messages fits an image
LOOK = 0.05  # seconds between looks at the clock while an image waits: a simulated one need not go as fast as the machine's
KEPT = 256  # stamps of images, and messages of a partner, that are kept at most for finding what belongs together


@dataclass(frozen=True)
class Frame:
    """An image message, when it arrived (seconds of the clock), its partners by topic, and the wanted ones that never came.

    skipped: (header, arrival) of the images that were dropped since the frame before, the oldest first
    """

    image: Any
    arrival: float
    partners: dict[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    skipped: tuple[tuple[Any, float], ...] = ()


@dataclass
class _Pending:
    """An image that waits; ``partners``: topic -> (stamp, message)."""

    stamp: float
    arrival: float
    message: Any
    header: Any
    partners: dict[str, tuple[float, Any]]


class Partner:
    """What is known of one partner topic. Times are seconds of the clock; None: never.

    useful:   when a message last fitted an image in time, or when the topic was first advertised;  missed: images since then
    received: when a message last came;  delay: seconds between the arrivals of the last fitting image and of its partner
    distance: of the last message's stamp from the nearest image's, in seconds
    """

    def __init__(self, timeless: bool) -> None:
        self.timeless, self.messages = timeless, deque[tuple[float, float, Any]](maxlen=1 if timeless else KEPT)
        self.useful: float | None = None
        self.missed = 0
        self.received: float | None = None
        self.delay: float | None = None
        self.distance: float | None = None

    def forget(self) -> None:
        """Another time counts from now on."""
        self.useful = self.received = self.delay = self.distance = None
        self.missed = 0
        if not self.timeless:
            self.messages.clear()

    def advertised(self, is_so: bool, now: float) -> None:
        """Whether somebody publishes the topic; told with every image."""
        if not is_so:
            self.useful = None
        elif self.useful is None:
            self.useful, self.missed = now, 0
        self.missed += 1

    def fits(self, now: float, delay: float, in_time: bool = True) -> None:
        """One of its messages belongs to an image that came ``delay`` seconds before it."""
        self.delay = delay
        if in_time and self.useful is not None:
            self.useful, self.missed = now, 0

    def wanted(self, now: float, patience: float) -> bool:
        """Whether images are to wait for it."""
        return self.useful is not None and not self._given_up(now, patience) and not (self.timeless and self.messages)

    def _given_up(self, now: float, patience: float) -> bool:
        return self.useful is None or (now - self.useful > TRUST * patience and self.missed > TRUST)

    def trouble(self, now: float, slop: float, patience: float) -> tuple[str, str] | None:
        """(kind, text) if it is advertised and yet not waited for, else None."""
        if self.useful is None or not self._given_up(now, patience) or self.timeless and self.messages:
            return None
        on = "going on without, until it fits again"
        if self.received is None or now - self.received > TRUST * patience:
            return "silent", f"somebody publishes it, but for {now - self.useful:.1f} s nothing came; {on}"
        if self.delay is not None and self.delay > patience:
            return "too late", f"it comes {self.delay:.2f} s after its image, the patience is {patience} s; raise patience; {on}"
        distance = "" if self.distance is None else f", the nearest by {self.distance:.3f} s"
        return "not synchronised", f"its stamps differ from those of the images by more than the slop of {slop} s{distance}; {on}"


class Synchroniser:
    """Pairs images with their partners; pure bookkeeping, told the time. See :class:`FrameSlot` for threads.

    slop:     largest difference in seconds between the stamps of an image and of its partners
    patience: seconds after which an image is handed out without the partners that did not come
    partners, timeless: topics, and those of them whose last message belongs to every image (camera_info)
    """

    def __init__(self, slop: float, patience: float, partners: Collection[str] = (), timeless: Collection[str] = ()) -> None:
        self.slop, self.patience = slop, patience
        self.partners = {topic: Partner(topic in timeless) for topic in partners}
        self._pending: deque[_Pending] = deque()
        self._stamps: deque[tuple[float, float]] = deque(maxlen=KEPT)  # (stamp, arrival) of images, also of those handed out
        self._skipped: deque[tuple[Any, float]] = deque(maxlen=KEPT)
        self.received = self.dropped = 0

    def put_image(self, stamp: float, message: Any, advertised: Collection[str], now: float, header: Any = None) -> None:
        """An image arrived; ``advertised`` names the partner topics that somebody publishes, ``header`` is kept where it is dropped."""
        self.received += 1
        self._stamps.append((stamp, now))
        found = {}
        for topic, partner in self.partners.items():
            partner.advertised(topic in advertised, now)
            self._expire(partner, now)
            near = min(reversed(partner.messages), key=lambda item: abs(item[0] - stamp), default=None)
            if near is not None and (partner.timeless or abs(near[0] - stamp) <= self.slop):
                found[topic] = near[0], near[2]
                partner.fits(now, near[1] - now)
        self._pending.append(_Pending(stamp, now, message, header, found))
        self._thin(now)

    def put_partner(self, topic: str, stamp: float, message: Any, now: float) -> None:
        """A depth image, mask or camera_info arrived."""
        partner = self.partners[topic]
        partner.received = now
        self._expire(partner, now)
        partner.messages.append((stamp, now, message))
        for image in self._pending:
            before = image.partners.get(topic)
            fits = partner.timeless or abs(stamp - image.stamp) <= self.slop
            if fits and (before is None or partner.timeless or abs(stamp - image.stamp) <= abs(before[0] - image.stamp)):
                image.partners[topic] = stamp, message
        self._judge(partner, stamp, now)
        self._thin(now)

    def take(self, now: float) -> Frame | None:
        """The newest :class:`Frame` that is complete, or has waited long enough; None while there is none."""
        ready = self._newest_ready(now)
        if ready is None:
            return None
        self._drop(ready)
        image = self._pending.popleft()
        missing = tuple(topic for topic in self._wanted(now) if topic not in image.partners)
        skipped = tuple(self._skipped)
        self._skipped.clear()
        return Frame(image.message, image.arrival, {topic: message for topic, (_, message) in image.partners.items()}, missing, skipped)

    def restart(self) -> None:
        """The time has gone back: what came before belongs to nothing that comes now, except what is timeless."""
        self._drop(len(self._pending))
        self._stamps.clear()
        self._skipped.clear()
        for partner in self.partners.values():
            partner.forget()

    def next_due(self) -> float | None:
        """When the first pending image will have waited long enough."""
        return self._pending[0].arrival + self.patience if self._pending else None

    def troubles(self, now: float) -> dict[str, tuple[str, str]]:
        """{topic: (kind, text)} of the partners that are published and yet not waited for."""
        found = {topic: partner.trouble(now, self.slop, self.patience) for topic, partner in self.partners.items()}
        return {topic: trouble for topic, trouble in found.items() if trouble is not None}

    def _newest_ready(self, now):
        wanted = self._wanted(now)
        for index in reversed(range(len(self._pending))):
            image = self._pending[index]
            if now - image.arrival >= self.patience or all(topic in image.partners for topic in wanted):
                return index
        return None

    def _wanted(self, now):
        return [topic for topic, partner in self.partners.items() if partner.wanted(now, self.patience)]

    def _thin(self, now):
        """Images older than one that is ready will never be handed out."""
        ready = self._newest_ready(now)
        if ready is not None:
            self._drop(ready)
        self._drop(len(self._pending) - KEPT)

    def _drop(self, count):
        for _ in range(count):
            image = self._pending.popleft()
            self._skipped.append((image.header, image.arrival))
            self.dropped += 1

    def _expire(self, partner, now):
        while not partner.timeless and partner.messages and now - partner.messages[0][1] > self.patience:
            partner.messages.popleft()

    def _judge(self, partner, stamp, now):
        """Whether a message of a partner fits an image, and comes in time for it."""
        if partner.timeless:
            partner.fits(now, 0.0)
            return
        near = min(self._stamps, key=lambda item: abs(item[0] - stamp), default=None)
        if near is None:
            return
        partner.distance = abs(near[0] - stamp)
        if partner.distance <= self.slop:
            partner.fits(now, now - near[1], now - near[1] <= self.patience)


class FrameSlot:
    """A :class:`Synchroniser` between the callbacks and a worker that waits for frames; ``clock`` gives seconds."""

    def __init__(self, synchroniser: Synchroniser, clock: Callable[[], float] = time.monotonic) -> None:
        self._synchroniser, self._clock = synchroniser, clock
        self._closed = False
        self._condition = threading.Condition()

    def put_image(self, stamp: float, message: Any, advertised: Collection[str] = (), header: Any = None) -> None:
        """See :meth:`Synchroniser.put_image`."""
        with self._condition:
            self._synchroniser.put_image(stamp, message, advertised, self._clock(), header)
            self._condition.notify()

    def put_partner(self, topic: str, stamp: float, message: Any) -> None:
        """See :meth:`Synchroniser.put_partner`."""
        with self._condition:
            self._synchroniser.put_partner(topic, stamp, message, self._clock())
            self._condition.notify()

    def take(self) -> Frame | None:
        """Waits for the next :class:`Frame`; None once the slot is closed."""
        with self._condition:
            while not self._closed:
                now = self._clock()
                frame = self._synchroniser.take(now)
                if frame is not None:
                    return frame
                due = self._synchroniser.next_due()
                self._condition.wait(timeout=None if due is None else min(max(due - now, 0.001), LOOK))
            return None

    def look(self) -> tuple[int, int, dict[str, Partner], dict[str, tuple[str, str]], float]:
        """(images received, dropped, {topic: :class:`Partner`}, troubles, the time now), for diagnostics."""
        with self._condition:
            now, own = self._clock(), self._synchroniser
            return own.received, own.dropped, own.partners, own.troubles(now), now

    def set_times(self, slop: float, patience: float) -> None:
        """Changes both while frames come."""
        with self._condition:
            self._synchroniser.slop, self._synchroniser.patience = slop, patience
            self._condition.notify()

    def restart(self) -> None:
        """See :meth:`Synchroniser.restart`."""
        with self._condition:
            self._synchroniser.restart()

    def close(self) -> None:
        """Ends all waiting."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
