"""Video: starting from the alignment of the frame before, and knowing when not to."""

import torch

from semalign3d_core.alignment.gauss_newton.poses import FOCAL, Poses
from semalign3d_core.alignment.outcome import state_parts

REFRESH = 15  # frames after which the bank is asked again, so that no wrong pose survives
ENERGY_JUMP = 0.12  # rise of the energy between frames that means a cut
GROWTH = (0.7, 1.4)  # of the mask's box between frames


def continues(previous, image, config):
    """Whether the frame may show the same object: it was found before, and the mask's box has not jumped."""
    if not previous.found or previous.diagnostics["warm_frames"] >= REFRESH:
        return False
    before, box = previous.diagnostics["mask_box"], image.box
    if before is None or box is None:
        return before is None and box is None
    size = max(box[2] - box[0], box[3] - box[1])
    return max(abs(now - then) for now, then in zip(box, before, strict=True)) < config.mask_jump * size


def last_seen(previous, longer_side):
    """Box (x0, y0, x1, y1) in pixels of the mask in the frame before, ``longer_side`` the picture's longer side in pixels; None where
    the object was not found, had no mask, or is to be searched for everywhere again."""
    if previous is None or not previous.found or previous.diagnostics["warm_frames"] >= REFRESH:
        return None
    box = previous.diagnostics["mask_box"]
    return None if box is None else tuple(round(value * longer_side + 0.5) - 0.5 for value in box)  # edges of pixels


def warm_start(state, observation):
    """:class:`Poses` (B = 1), and margin and lead (2,), of a state (outcome.py), moved with the mask's box where there is one."""
    pose, focal, known, before = state_parts(state)
    log_focal = (focal - observation.focal.log().mean()) * (not observation.focal_known)
    rotation, rest = pose[:9], pose[9:]
    poses = Poses(rotation.view(1, 3, 3), torch.cat([rest[:FOCAL], log_focal, rest[FOCAL + 1 :]])[None])
    return (poses if observation.field is None else _moved(poses, observation, before)), known


def _moved(poses, observation, before):
    """Shift and scale by which the box of the mask changed."""
    box = observation.boxes[0]
    growth = ((box[2:] - box[:2]).sum() / (before[2:] - before[:2]).sum()).clamp(*GROWTH)
    focal = observation.focal * poses.log_focal.exp()[:, None]
    origin = focal * poses.shift + observation.principal
    target = (box[2:] + box[:2]) / 2 + growth * (origin - (before[2:] + before[:2]) / 2)
    shift, log_scale = (target - observation.principal) / focal, poses.log_scale + growth.log()
    return Poses.deformed(poses.rotation, shift, log_scale, poses.log_focal, poses.coefficients)


def needs_restart(alignment, previous, config):
    """Whether a warm result is not to be trusted: low confidence, not found, or an energy far above the one before."""
    jump = alignment.diagnostics["statistics"]["energy"] - previous.diagnostics["statistics"]["energy"]
    return not alignment.found or alignment.confidence < config.retry_threshold or jump > ENERGY_JUMP
