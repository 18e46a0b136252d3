"""Parameters of the node ``image_source``."""

from dataclasses import dataclass
from typing import Annotated

from typing_extensions import Doc

from semalign3d_ros.declared import FIXED, Between, OneOf


@dataclass(frozen=True)
class ImageSourceParameters:
    """Parameters of the node ``image_source``."""

    source: Annotated[str, Doc("folder of images, image file, video file, rosbag2 (folder, .mcap, .db3), or number of a webcam"), FIXED] = (
        ""
    )
    rate: Annotated[float, Doc("images per second; 0: as recorded (video, bag, webcam), or 10"), Between(0.0, 10000.0), FIXED] = 0.0
    start: Annotated[float, Doc("seconds after the beginning of the source at which to begin; set while it plays, it goes there at once"), Between(0.0, 1e6)] = 0.0  # fmt: skip  # noqa: E501
    loop: Annotated[bool, Doc("begin again at the end, from start on")] = False
    clock: Annotated[bool, Doc("publish /clock: the time of the recording, or of the images where there is none; for nodes with use_sim_time"), FIXED] = False  # fmt: skip  # noqa: E501
    wait_for: Annotated[str, Doc("topic of SemanticKeypoints whose answer to an image is waited for before the next one; empty: none"), FIXED] = ""  # fmt: skip  # noqa: E501
    wait_timeout: Annotated[float, Doc("seconds after which wait_for is given up for an image"), Between(0.0, 3600.0), FIXED] = 30.0
    frame_id: Annotated[str, Doc("frame of the published images"), FIXED] = "camera"
    image_topic: Annotated[str, Doc("topic of the images inside a bag; empty: the only one, or the first"), FIXED] = ""
    camera_topic: Annotated[str, Doc("topic of the CameraInfo inside a bag; empty: the only one, or the first"), FIXED] = ""
    depth_topic: Annotated[str, Doc("topic of depth images inside a bag that are published as depth; empty: one that is called aligned or registered; none: no depth"), FIXED] = ""  # fmt: skip  # noqa: E501
    camera: Annotated[str, Doc("YAML file with a camera calibration, as camera_calibration writes it; empty: none"), FIXED] = ""
    focal_length: Annotated[float, Doc("focal length in pixels for the CameraInfo without a calibration; 0: none is published"), Between(0.0, 1e6), FIXED] = 0.0  # fmt: skip  # noqa: E501
    image_transport: Annotated[str, Doc("raw (topic image) or compressed (topic image/compressed, JPEG)"), OneOf(("raw", "compressed")), FIXED] = "raw"  # fmt: skip  # noqa: E501
    subscribers: Annotated[int, Doc("number of subscribers to wait for before the first image"), Between(0, 1000), FIXED] = 1
