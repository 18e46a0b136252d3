"""Parameters of the node ``align``."""

from dataclasses import dataclass
from typing import Annotated

from typing_extensions import Doc

from semalign3d_core.pipeline import PipelineConfig
from semalign3d_ros.declared import FIXED, Between, OneOf


@dataclass(frozen=True)
class AlignParameters(PipelineConfig):
    """Parameters of the node ``align``."""

    image_transport: Annotated[str, Doc("raw (topic image) or compressed (topic image/compressed, JPEG or PNG)"), OneOf(("raw", "compressed")), FIXED] = "raw"  # fmt: skip  # noqa: E501
    depth_transport: Annotated[str, Doc("raw (topic depth) or compressedDepth (topic depth/compressedDepth, PNG)"), OneOf(("raw", "compressedDepth")), FIXED] = "raw"  # fmt: skip  # noqa: E501
    rectified: Annotated[str, Doc("whether the images are rectified, so that P of the CameraInfo counts and not K and D: yes, no; auto: by the name of the topic (image_rect...)"), OneOf(("auto", "yes", "no"))] = "auto"  # fmt: skip  # noqa: E501
    depth_unit: Annotated[float, Doc("metres per unit of depth images; 0: millimetres for 16UC1, metres for 32FC1"), Between(0.0, 10.0)] = (
        0.0
    )
    depth_registered: Annotated[bool, Doc("depth images count as aligned to the images whatever the name of their frame")] = False
    depth_extrinsics: Annotated[str, Doc("pose of the depth camera in the frame of the images, x y z qx qy qz qw in metres; empty: that of TF where depth is not aligned")] = ""  # fmt: skip  # noqa: E501
    relative_outputs: Annotated[bool, Doc("publish pose, points and markers also where the scale is unknown, in the frame <frame>_up_to_scale")] = False  # fmt: skip  # noqa: E501
    target_frame: Annotated[str, Doc("frame in which poses, points, markers and 3D detections are published, by TF at the image's stamp; empty: that of the images")] = ""  # fmt: skip  # noqa: E501
    up_frame: Annotated[str, Doc("frame whose z axis points up, by TF (map, odom, base_link ...): objects are taken to stand upright in it; empty: not known")] = ""  # fmt: skip  # noqa: E501
    grasps: Annotated[str, Doc("YAML file of frames made of keypoints, published as poses (topic grasps) and TF; empty: none"), FIXED] = ""
    tf_keypoints: Annotated[str, Doc("keypoints that get a TF frame of their own, separated by commas; all: every one; empty: none")] = ""
    rerun: Annotated[
        str, Doc("recording (.rrd) of all images and the best object in each, for the viewer of rerun; empty: none"), FIXED
    ] = ""
    objects: Annotated[str, Doc("how many objects are looked for without mask labels or detections: one, or all parts of what the mask source finds"), OneOf(("one", "all"))] = "one"  # fmt: skip  # noqa: E501
    warm_start: Annotated[bool, Doc("start from the alignment of the previous image instead of searching anew")] = False
    predict: Annotated[bool, Doc("answer images that come while the one before is looked at by the motion of the objects, on keypoints and objects, marked as predicted")] = False  # fmt: skip  # noqa: E501
    slop: Annotated[float, Doc("largest difference in seconds between the stamps of an image and of its depth image and mask"), Between(0.0, 10.0)] = 0.02  # fmt: skip  # noqa: E501
    patience: Annotated[float, Doc("seconds to wait for the depth image, mask and camera_info of an image"), Between(0.0, 60.0)] = 0.5
    allow_model_paths: Annotated[bool, Doc("requests may name any file; else only categories, and demonstrations in the folders of models and demonstration"), FIXED] = False  # fmt: skip  # noqa: E501
    threads: Annotated[int, Doc("CPU threads for features, depth and masks (alignment takes one); 0: as many as there are cores"), Between(0, 1024)] = 0  # fmt: skip  # noqa: E501
