"""Subscriptions that take what the publishers offer: reliable where all of them are, best effort where one is not.

ROS' own "best available" decides once, when the subscription is made, and never receives from a publisher that comes later and offers
less. This one looks again: when the middleware tells of a mismatch, and with :meth:`AdaptiveSubscription.adapt`.
"""

from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

QUEUE = 5  # messages that may wait for a busy callback thread; which one counts is decided later, by stamp
BEST_AVAILABLE = QoSReliabilityPolicy.BEST_AVAILABLE
Offer = tuple[QoSReliabilityPolicy, QoSDurabilityPolicy]


class AdaptiveSubscription:
    """One subscription of ``node``; ``callback(message)``. The user may fix the QoS with the parameters ``qos_overrides``.

    latched: the last message counts even if it was published before (camera_info)
    lost: number of messages that the middleware has lost on the way;  topic: full name, remapped
    """

    def __init__(self, node: Node, message_type: Any, topic: str, callback: Callable[[Any], None], latched: bool = False) -> None:
        self._node, self._type, self._callback, self._latched = node, message_type, callback, latched
        self.lost, self._lost_before, self._told = 0, 0, 0
        self._look_again = node.create_guard_condition(self.adapt)  # a subscription must not be replaced inside of its own event
        self.topic = node.resolve_topic_name(topic)
        self._fixed, self._depth = False, 1 if latched else QUEUE
        self._offer: Offer = self._wanted() or (QoSReliabilityPolicy.RELIABLE, QoSDurabilityPolicy.VOLATILE)
        options = QoSOverridingOptions.with_default_policies(callback=self._choose)
        self._subscription = self._subscribe(QoSProfile(depth=self._depth, reliability=BEST_AVAILABLE), options)

    def publishers(self) -> int:
        """How many publishers the topic has."""
        return self._node.count_publishers(self.topic)

    @property
    def reliability(self) -> str:
        """What is in force, in words."""
        return "as its parameter says" if self._fixed else self._offer[0].name.lower() if self.publishers() else "not connected"

    def newly_lost(self) -> int:
        """Messages lost since this was asked before."""
        before, self._told = self._told, self.lost
        return self.lost - before

    def adapt(self) -> None:
        """Subscribes anew where publishers have come or gone that offer something else."""
        offer = None if self._fixed else self._wanted()
        if offer is None or offer == self._offer:
            return
        self._offer, self._lost_before = offer, self.lost
        self._node.destroy_subscription(self._subscription)
        qos = QoSProfile(depth=self._depth, reliability=offer[0], durability=offer[1])
        self._subscription = self._subscribe(qos, None)

    def _choose(self, qos: QoSProfile) -> SetParametersResult:
        """Completes the QoS that the user's parameters leave open."""
        self._fixed, self._depth = qos.reliability != BEST_AVAILABLE, qos.depth
        if not self._fixed:
            qos.reliability, qos.durability = self._offer
        return SetParametersResult(successful=True)

    def _wanted(self) -> Offer | None:
        offers = [info.qos_profile for info in self._node.get_publishers_info_by_topic(self.topic)]
        if not offers:
            return None
        reliable = all(offer.reliability == QoSReliabilityPolicy.RELIABLE for offer in offers)
        kept = self._latched and all(offer.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL for offer in offers)
        return (
            QoSReliabilityPolicy.RELIABLE if reliable else QoSReliabilityPolicy.BEST_EFFORT,
            QoSDurabilityPolicy.TRANSIENT_LOCAL if kept else QoSDurabilityPolicy.VOLATILE,
        )

    def _subscribe(self, qos, options):
        events = SubscriptionEventCallbacks(incompatible_qos=self._on_event, matched=self._on_event, message_lost=self._on_lost)
        return self._node.create_subscription(
            self._type, self.topic, self._callback, qos, event_callbacks=events, qos_overriding_options=options
        )

    def _on_event(self, _):
        self._look_again.trigger()

    def _on_lost(self, status):
        self.lost = self._lost_before + status.total_count
