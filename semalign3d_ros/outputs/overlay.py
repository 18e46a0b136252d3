"""The picture that shows what was found, as a message."""

from sensor_msgs.msg import Image
from std_msgs.msg import Header

from semalign3d_core.pipeline import FrameResult, Pipeline
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.visualization.overlay import draw_alignment, draw_points
from semalign3d_core.visualization.sphere import on_sphere
from semalign3d_ros.conversions import array_to_image


def overlay_message(pipeline: Pipeline, result: FrameResult, header: Header) -> Image:
    """The frame (:class:`FrameResult`) with keypoints, and the demonstration's points where there is a demonstration.

    With a sphere mapper the object has the colours of its places on the sphere.
    """
    if result.evidence.image is None:
        raise InputError("this evidence does not hold the picture to draw on")
    rgb = result.evidence.image if pipeline.mapper is None else on_sphere(pipeline.mapper, result.evidence)
    picture = draw_alignment(rgb, result.alignment)
    shown = pipeline.demonstration
    if shown is not None and result.matches is not None and result.alignment.found:
        names = result.alignment.keypoint_names
        picture = draw_points(picture, result.matches.points, shown.labels, result.matches.visible, names)
    return array_to_image(picture, "rgb8", header)
