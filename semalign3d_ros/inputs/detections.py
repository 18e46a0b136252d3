"""Detection2DArray of vision_msgs, where that is installed: boxes in, 3D detections out."""

import math
from typing import Any

from std_msgs.msg import Header

from semalign3d_core.alignment.result import Alignment
from semalign3d_core.perception.look import Box
from semalign3d_ros.conversions import BadMessage


def vision_messages() -> Any:
    """The module ``vision_msgs.msg``, or None where it is not installed (it is not on PyPI)."""
    try:
        import vision_msgs.msg
    except ImportError:
        return None
    return vision_msgs.msg


def boxes_of(message: Any, height: int, width: int) -> list[tuple[Box, str]]:
    """((x0, y0, x1, y1) in pixels, name of the likeliest class) of a Detection2DArray, the surest detections first.

    Boxes are cut at the edge of the image of ``height x width`` pixels; those outside of it are left out.
    Raises :class:`BadMessage` for numbers that are not finite.
    """
    found = []
    for detection in message.detections:
        box = detection.bbox
        numbers = box.center.position.x, box.center.position.y, box.size_x, box.size_y
        if not all(map(math.isfinite, numbers)):
            raise BadMessage("broken box", f"a box has centre and size {numbers}, expected finite numbers; check the detector")
        x, y, w, h = numbers
        x0, y0, x1, y1 = max(x - w / 2, 0.0), max(y - h / 2, 0.0), min(x + w / 2, width - 1.0), min(y + h / 2, height - 1.0)
        if x1 - x0 < 1 or y1 - y0 < 1:
            continue
        best = max(detection.results, key=lambda result: result.hypothesis.score, default=None)
        name, score = ("", 0.0) if best is None else (best.hypothesis.class_id, best.hypothesis.score)
        found.append((score, (x0, y0, x1, y1), name))
    return [(box, name) for score, box, name in sorted(found, key=lambda one: -one[0])]


def detections_3d(objects: list[tuple[Alignment, Any, int]], header: Header) -> Any:
    """(alignment in metres, its Pose, its number) of every object as Detection3DArray; boxes are those of the object's dense points."""
    vision = vision_messages()
    message = vision.Detection3DArray(header=header)
    for alignment, pose, number in objects:
        local = (alignment.cloud_3d - alignment.translation) @ alignment.rotation  # in the object's own directions
        low, high = local.amin(0), local.amax(0)
        centre = alignment.rotation @ ((low + high) / 2) + alignment.translation
        detection = vision.Detection3D(header=header, id=str(number))
        detection.bbox.center.orientation = pose.orientation
        detection.bbox.center.position.x, detection.bbox.center.position.y, detection.bbox.center.position.z = map(float, centre)
        detection.bbox.size.x, detection.bbox.size.y, detection.bbox.size.z = map(float, high - low)
        result = vision.ObjectHypothesisWithPose()
        result.hypothesis.class_id, result.hypothesis.score, result.pose.pose = alignment.category, float(alignment.confidence), pose
        detection.results = [result]
        message.detections.append(detection)
    return message
