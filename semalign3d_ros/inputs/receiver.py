"""The subscriptions of the node: images and what belongs to them, from the middleware's thread into a :class:`FrameSlot`."""

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from semalign3d_ros.conversions import seconds
from semalign3d_ros.inputs.decoder import Problem
from semalign3d_ros.inputs.detections import vision_messages
from semalign3d_ros.inputs.subscriptions import AdaptiveSubscription
from semalign3d_ros.inputs.synchroniser import FrameSlot, Synchroniser
from semalign3d_ros.parameters import AlignParameters

TRANSPORTS = {"raw": ("", Image), "compressed": ("/compressed", CompressedImage), "compressedDepth": ("/compressedDepth", CompressedImage)}
INFOS = ("camera_info", "depth_camera_info")  # the last one belongs to every image


class Receiver:
    """Subscribes to what the parameters name; ``clock`` gives the seconds that patience counts in.

    topics: full names by role;  slot: where frames come out
    """

    def __init__(self, node: Node, parameters: AlignParameters, clock: Callable[[], float]) -> None:
        vision = vision_messages()
        partners = ("camera_info", "depth", "mask", "depth_camera_info", *(("detections",) if vision else ()))
        self.slot = FrameSlot(Synchroniser(parameters.slop, parameters.patience, partners, INFOS), clock)
        types: dict[str, Any] = {"camera_info": CameraInfo, "mask": Image, "depth_camera_info": CameraInfo}
        if vision:
            types["detections"] = vision.Detection2DArray
        names = {role: node.resolve_topic_name(role) for role in ("image", *partners)}
        names["depth_camera_info"] = _info_beside_depth(node, names)
        for role, transport in (("image", parameters.image_transport), ("depth", parameters.depth_transport)):
            suffix, types[role] = TRANSPORTS[transport]
            names[role] += suffix  # after resolving, so that remapping "image" suffices
        self._subscriptions = {
            role: AdaptiveSubscription(node, types[role], name, self._callback(role), latched=role in INFOS) for role, name in names.items()
        }
        self.topics = {role: subscription.topic for role, subscription in self._subscriptions.items()}

    def adapt(self) -> None:
        """Looks at what the publishers offer now; to be called every now and then."""
        for subscription in self._subscriptions.values():
            subscription.adapt()

    def conditions(self) -> dict[str, str]:
        """{kind: text} of the partners that are published and yet of no use."""
        return {f"{topic}: {kind}": f"{self.topics[topic]}: {text}" for topic, (kind, text) in self.slot.look()[3].items()}

    def report_losses(self, problem: Problem) -> None:
        """Tells ``problem(kind, text)`` of messages that were lost since this was called before."""
        for role, subscription in self._subscriptions.items():
            lost = subscription.newly_lost()
            if lost:
                how = "make its publisher reliable, or use config/fastdds_shared_memory.xml for all nodes of the machine"
                problem(f"{role}: lost on the way", f"{subscription.topic}: {lost} messages ({subscription.reliability}); {how}")

    def values(self) -> dict[str, Any]:
        """What diagnostics say of the inputs."""
        received, dropped, partners, _, now = self.slot.look()
        values: dict[str, Any] = {"images received": received, "images dropped": dropped}
        values["images lost on the way"] = self._subscriptions["image"].lost
        values["reliability of images"] = self._subscriptions["image"].reliability
        for topic, partner in partners.items():
            if partner.received is not None:
                values[f"age of {topic} in s"] = round(now - partner.received, 3)
            if partner.delay is not None and not partner.timeless:
                values[f"delay of {topic} in ms"] = round(1000 * partner.delay, 1)
        return values

    def _callback(self, role):
        if role == "image":
            return self._on_image
        return lambda message: self.slot.put_partner(role, seconds(message.header.stamp), message)

    def _on_image(self, message):
        advertised = [role for role, subscription in self._subscriptions.items() if role != "image" and subscription.publishers()]
        self.slot.put_image(seconds(message.header.stamp), message, advertised, message.header)


def _info_beside_depth(node, names):
    """Where the CameraInfo of depth images is: beside them, as ROS has it, unless depth_camera_info is remapped."""
    own = names["depth_camera_info"]
    beside = names["depth"].rsplit("/", 1)[0] + "/camera_info"
    return own if own != node.resolve_topic_name("depth_camera_info", only_expand=True) or beside == names["camera_info"] else beside
