"""Node parameters, declared from dataclasses: default, type and description stand in one place."""

from dataclasses import dataclass, fields
from typing import TypeVar

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node

from semalign3d_core.pipeline import PipelineConfig, option
from semalign3d_core.runtime.config import from_dict

Parameters = TypeVar("Parameters", "AlignParameters", "ImageSourceParameters")


@dataclass(frozen=True)
class AlignParameters(PipelineConfig):
    """Parameters of the node ``align``."""

    image_transport: str = option("raw", "raw (topic image) or compressed (topic image/compressed, JPEG or PNG)")
    warm_start: bool = option(False, "start from the alignment of the previous image instead of searching anew")
    slop: float = option(0.02, "largest difference in seconds between the stamps of an image and of its depth image and mask")
    patience: float = option(0.5, "seconds to wait for the depth image, mask and camera_info of an image before going on without them")
    threads: int = option(0, "CPU threads for features, depth and masks (alignment takes one); 0: as many as there are cores")


@dataclass(frozen=True)
class ImageSourceParameters:
    """Parameters of the node ``image_source``."""

    source: str = option("", "folder of images, image file, video file, rosbag2 folder, or number of a webcam")
    rate: float = option(0.0, "images per second; 0: as recorded (video, bag, webcam), or 10")
    loop: bool = option(False, "begin again at the end")
    wait_for: str = option("", "topic of SemanticKeypoints whose answer to an image is waited for before the next one; empty: none")
    wait_timeout: float = option(30.0, "seconds after which wait_for is given up for an image")
    frame_id: str = option("camera", "frame of the published images")
    image_topic: str = option("", "topic of the images inside a bag; empty: the only one, or the first")
    camera_topic: str = option("", "topic of the CameraInfo inside a bag; empty: the only one, or the first")
    depth_topic: str = option("", "topic of depth images inside a bag that are published as depth; empty: none")
    camera: str = option("", "YAML file with a camera calibration, as camera_calibration writes it; empty: none")
    focal_length: float = option(0.0, "focal length in pixels for the CameraInfo where there is no calibration; 0: none is published")
    image_transport: str = option("raw", "raw (topic image) or compressed (topic image/compressed, JPEG)")
    subscribers: int = option(1, "number of subscribers to wait for before the first image")


def declare(node: Node, parameter_class: type[Parameters]) -> Parameters:
    """Declares a parameter for every field of the dataclass and returns it filled in.

    Raises :class:`InputError` naming the parameter when a value has the wrong type.
    """
    values = {}
    for item in fields(parameter_class):
        descriptor = ParameterDescriptor(description=item.metadata["help"], read_only=True, dynamic_typing=True)
        values[item.name] = node.declare_parameter(item.name, item.default, descriptor).value
    return from_dict(parameter_class, values, f"parameter of node {node.get_fully_qualified_name()}")
