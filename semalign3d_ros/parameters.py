"""Node parameters, declared from dataclasses: default, type and description stand in one place."""

from dataclasses import dataclass, fields
from typing import Annotated, TypeVar, get_type_hints

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from typing_extensions import Doc

from semalign3d_core.pipeline import PipelineConfig
from semalign3d_core.runtime.config import from_dict

Parameters = TypeVar("Parameters", "AlignParameters", "ImageSourceParameters")


@dataclass(frozen=True)
class AlignParameters(PipelineConfig):
    """Parameters of the node ``align``."""

    image_transport: Annotated[str, Doc("raw (topic image) or compressed (topic image/compressed, JPEG or PNG)")] = "raw"
    warm_start: Annotated[bool, Doc("start from the alignment of the previous image instead of searching anew")] = False
    slop: Annotated[float, Doc("largest difference in seconds between the stamps of an image and of its depth image and mask")] = 0.02
    patience: Annotated[float, Doc("seconds to wait for the depth image, mask and camera_info of an image")] = 0.5
    threads: Annotated[int, Doc("CPU threads for features, depth and masks (alignment takes one); 0: as many as there are cores")] = 0


@dataclass(frozen=True)
class ImageSourceParameters:
    """Parameters of the node ``image_source``."""

    source: Annotated[str, Doc("folder of images, image file, video file, rosbag2 folder, or number of a webcam")] = ""
    rate: Annotated[float, Doc("images per second; 0: as recorded (video, bag, webcam), or 10")] = 0.0
    loop: Annotated[bool, Doc("begin again at the end")] = False
    wait_for: Annotated[str, Doc("topic of SemanticKeypoints whose answer to an image is waited for before the next one; empty: none")] = ""
    wait_timeout: Annotated[float, Doc("seconds after which wait_for is given up for an image")] = 30.0
    frame_id: Annotated[str, Doc("frame of the published images")] = "camera"
    image_topic: Annotated[str, Doc("topic of the images inside a bag; empty: the only one, or the first")] = ""
    camera_topic: Annotated[str, Doc("topic of the CameraInfo inside a bag; empty: the only one, or the first")] = ""
    depth_topic: Annotated[str, Doc("topic of depth images inside a bag that are published as depth; empty: none")] = ""
    camera: Annotated[str, Doc("YAML file with a camera calibration, as camera_calibration writes it; empty: none")] = ""
    focal_length: Annotated[float, Doc("focal length in pixels for the CameraInfo without a calibration; 0: none is published")] = 0.0
    image_transport: Annotated[str, Doc("raw (topic image) or compressed (topic image/compressed, JPEG)")] = "raw"
    subscribers: Annotated[int, Doc("number of subscribers to wait for before the first image")] = 1


def declare(node: Node, parameter_class: type[Parameters]) -> Parameters:
    """Declares a parameter for every field of the dataclass and returns it filled in.

    Raises :class:`InputError` naming the parameter when a value has the wrong type.
    """
    values, hints = {}, get_type_hints(parameter_class, include_extras=True)
    for item in fields(parameter_class):
        descriptor = ParameterDescriptor(description=hints[item.name].__metadata__[0].documentation, read_only=True, dynamic_typing=True)
        values[item.name] = node.declare_parameter(item.name, item.default, descriptor).value
    return from_dict(parameter_class, values, f"parameter of node {node.get_fully_qualified_name()}")
