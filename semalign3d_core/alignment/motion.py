"""Where an object will be: constant velocity in the camera's frame, from the alignments of two frames."""

from dataclasses import replace

import torch
from torch import Tensor

from semalign3d_core.alignment.result import Alignment, inside_image
from semalign3d_core.geometry.rotations import rotation_from_vector, rotation_vector

FURTHEST = 2.0  # times the time between the two frames, up to which their motion says where the object is
LARGEST_TURN = 0.8  # radians between the two frames; beyond, they more likely hold two opinions of one pose


def predicted(first: Alignment, second: Alignment, ahead: float) -> Alignment | None:
    """The alignment ``second`` moved on as the object moved from ``first`` to it.

    first, second: of the same object in two frames of one camera; ahead: time since the second, in units of the time between them, 0 to 2
    Returns None where nothing can be said: one of them was not found, they are of different models or units, the object would have turned
    too fast to be believed, or ``ahead`` is too large.
    The object turns about its origin and moves with constant velocity; its size changes at a constant rate, where that is not known.
    What was seen of it is taken to stay seen inside the image. The shape, the confidences and the energy are those of ``second``, which has
    no tracking state: a prediction is not followed.
    """
    same = first.model_hash == second.model_hash and first.scale_kind == second.scale_kind
    if not (first.found and second.found and same and 0 <= ahead <= FURTHEST):
        return None
    vector = _turn(first, second)
    if float(vector.norm()) > LARGEST_TURN:
        return None
    turn = rotation_from_vector(ahead * vector)
    translation = second.translation + ahead * (second.translation - first.translation)
    growth = (second.scale / first.scale) ** ahead if second.scale_kind == "relative" else 1.0
    if not float(translation[2]) > 0:  # it would be behind the camera
        return None

    def moved(points: Tensor) -> Tensor:
        return growth * (points - second.translation) @ turn.T + translation

    keypoints, camera = moved(second.keypoints_3d), second.camera
    pixels = camera.to_pixels(camera.project(keypoints))
    return replace(
        second, keypoints_3d=keypoints, keypoints_2d=pixels, visible=second.visible & inside_image(pixels, camera),
        cloud_3d=moved(second.cloud_3d), rotation=turn @ second.rotation, translation=translation, scale=growth * second.scale,
        tracking=None, alternatives=None, diagnostics=None,
    )  # fmt: skip


def _turn(first: Alignment, second: Alignment) -> Tensor:
    """(3,) rotation vector from the first orientation to the second; the shortest one where a turn about an axis means nothing."""
    axis = second.undetermined_axis
    if axis is None:
        return rotation_vector(second.rotation @ first.rotation.T)
    before, now = first.rotation @ axis, second.rotation @ axis
    across = torch.linalg.cross(before, now)
    return across * (torch.atan2(across.norm(), before @ now) / across.norm().clamp(min=1e-9))
