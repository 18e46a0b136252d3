"""Video: starting from the alignment of the frame before, and knowing when not to."""

from dataclasses import replace

import torch

from semalign3d_core.alignment.poses import Poses
from semalign3d_core.geometry import similarity_alignment

REFRESH = 15  # frames after which the bank is asked again, so that no wrong pose survives
ENERGY_JUMP = 0.12  # rise of the energy between frames that means a cut


def continues(previous, observation, config):
    """Whether the frame may show the same object: it was found before, and the mask's box has not jumped."""
    if not previous.found or previous.diagnostics["warm_frames"] >= REFRESH:
        return False
    if observation.field is None:
        return True
    before, box = previous.diagnostics["box"].to(observation.boxes), observation.boxes[0]
    return float((box - before).abs().amax()) < config.mask_jump * observation.size


def warm_start(previous, category, observation):
    """:class:`Poses` (B = 1) of the previous alignment; moved with the mask's box, where there is one."""
    like = category.shape
    keypoints = previous.keypoints_3d[category.keypoints.to(previous.keypoints_3d.device)].to(like)
    keypoints = keypoints / keypoints[:, 2].mean()
    scale, rotation, translation = similarity_alignment(category.shape, keypoints)
    shape = (keypoints - translation) @ rotation / scale
    coefficients = torch.einsum("mkc,kc->m", category.modes, shape - category.shape)
    log_focal = (previous.camera.focal.to(like) / observation.focal).log().mean() * (not observation.focal_known)
    shift, log_scale = translation[:2] / translation[2], (scale / translation[2]).log()
    poses = Poses(*(value[None] for value in (rotation, shift, log_scale, log_focal, coefficients)))
    if observation.field is None:
        return poses
    return _moved(poses, category, observation, previous.diagnostics["box"].to(like))


def _moved(poses, category, observation, before):
    """Shift and scale by which the box of the mask changed."""
    box = observation.boxes[0]
    growth = ((box[2:] - box[:2]).sum() / (before[2:] - before[:2]).sum()).clamp(0.7, 1.4)
    focal = observation.focal * poses.log_focal.exp()[:, None]
    origin = focal * poses.shift + observation.principal
    target = (box[2:] + box[:2]) / 2 + growth * (origin - (before[2:] + before[:2]) / 2)
    return replace(poses, shift=(target - observation.principal) / focal, log_scale=poses.log_scale + growth.log())


def needs_restart(alignment, previous, config):
    """Whether a warm result is not to be trusted: low confidence, not found, or an energy far above the one before."""
    jump = alignment.diagnostics["statistics"]["energy"] - previous.diagnostics["statistics"]["energy"]
    return not alignment.found or alignment.confidence < config.retry_threshold or jump > ENERGY_JUMP
