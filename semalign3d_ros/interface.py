"""Topics, services, action and parameters of the nodes as tables; ``python -m semalign3d_ros.interface`` writes them into docs/ros.md."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path

from rcl_interfaces.msg import ParameterDescriptor

from semalign3d_ros.declared import descriptors
from semalign3d_ros.parameters import AlignParameters
from semalign3d_ros.sources.parameters import ImageSourceParameters

# role -> (type, what it is); relative to the namespace of the node. Those marked with * only where the package of their type is installed.
INPUTS = {
    "image": ("sensor_msgs/msg/Image", "images; with image_transport compressed: image/compressed, CompressedImage"),
    "camera_info": ("sensor_msgs/msg/CameraInfo", "of the images; the last one counts"),
    "depth": ("sensor_msgs/msg/Image", "depth images of the same stamp; with depth_transport compressedDepth: depth/compressedDepth"),
    "depth_camera_info": ("sensor_msgs/msg/CameraInfo", "of the depth images; not remapped: camera_info beside the topic of depth"),
    "mask": ("sensor_msgs/msg/Image", "mask of the object (mono8), or one label for every object (mono8, 16 or 32 bits)"),
    "detections": ("vision_msgs/msg/Detection2DArray", "boxes of a detector *"),
    "/tf": ("tf2_msgs/msg/TFMessage", "for target_frame, up_frame, and depth that is not aligned *"),
    "/tf_static": ("tf2_msgs/msg/TFMessage", "the same *"),
}
OUTPUTS = {
    "keypoints": (
        "semalign3d_ros/msg/SemanticKeypoints",
        "the best object: named keypoints, pose, covariances, latency; one per image",
    ),
    "objects": ("semalign3d_ros/msg/SemanticObjects", "all objects of the image, with ids that last"),
    "correspondences": ("semalign3d_ros/msg/Correspondences", "the points of the demonstration in the image"),
    "pose": ("geometry_msgs/msg/PoseStamped", "of the best object, in metres only"),
    "pose_with_covariance": ("geometry_msgs/msg/PoseWithCovarianceStamped", "the same with its covariance"),
    "grasps": ("geometry_msgs/msg/PoseArray", "frames of the parameter grasps, in metres only"),
    "points": ("sensor_msgs/msg/PointCloud2", "the surface of the best object, in metres only"),
    "markers": ("visualization_msgs/msg/MarkerArray", "keypoints for RViz, in metres only"),
    "overlay": ("sensor_msgs/msg/Image", "the picture with what was found, without lens distortion"),
    "detections_3d": ("vision_msgs/msg/Detection3DArray", "all objects in metres *"),
    "/tf": ("tf2_msgs/msg/TFMessage", "frames <category>_<id> of all objects in metres, their grasps and tf_keypoints *"),
    "/diagnostics": ("diagnostic_msgs/msg/DiagnosticArray", "once per second: problems, losses, rate, latency, delay and age of partners"),
}
SERVICES = {
    "~/set_category": ("semalign3d_ros/srv/SetCategory", "look for other categories"),
    "~/set_demonstration": ("semalign3d_ros/srv/SetDemonstration", "another demonstration, from a file or in the request"),
    "~/reset": ("std_srvs/srv/Trigger", "forget the image before"),
    "~/enable": ("std_srvs/srv/SetBool", "process images, or ignore them"),
    "~/align_now": ("semalign3d_ros/action/AlignNow", "action: one image of the request, or the next one, with category and demonstration"),
}
BEGIN, END = "<!-- tables: python -m semalign3d_ros.interface -->", "<!-- end of tables -->"

LEGEND = "\\* only where the package of its type (vision_msgs, tf2_msgs) is installed when the node starts"


def tables() -> str:
    """All tables as Markdown."""
    parts = []
    for title, rows in (("Inputs", INPUTS), ("Outputs", OUTPUTS), ("Services and action", SERVICES)):
        parts += [f"### {title}", _table(("name", "type", "what"), [(f"`{name}`", *row) for name, row in rows.items()])]
    parts.insert(4, LEGEND)
    for title, parameters in (("align", AlignParameters), ("image_source", ImageSourceParameters)):
        parts += [f"### Parameters of {title}", _table(("name", "default", "range", "changes live", "what"), _rows(parameters))]
    return "\n\n".join(parts)


def _table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "/").replace("<", "&lt;") for cell in line) + " |" for line in lines)


def _rows(parameters: type) -> Iterator[tuple[object, ...]]:
    defaults = {item.name: item.default for item in fields(parameters)}
    for name, one in descriptors(parameters).items():
        default = "(empty)" if defaults[name] == "" else defaults[name]
        yield f"`{name}`", default, _range(one), "no" if one.read_only else "yes", one.description


def _range(one: ParameterDescriptor) -> str:
    for limits in (*one.floating_point_range, *one.integer_range):
        return f"{limits.from_value} to {limits.to_value}"
    return one.additional_constraints


def with_tables(page: str) -> str:
    """A page with its tables made anew."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/ros.md")
    path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
