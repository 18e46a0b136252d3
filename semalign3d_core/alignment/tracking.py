"""Video: starting from the alignment of the frame before, and knowing when not to."""

import torch
from torch import Tensor

from semalign3d_core.alignment.gauss_newton.poses import FOCAL, Poses
from semalign3d_core.alignment.observation import Observation
from semalign3d_core.alignment.result import Alignment, TrackState

REFRESH = 15  # frames after which viewpoints are searched again, so that no wrong pose survives
ENERGY_JUMP = 0.12  # rise of the energy between frames that means a cut
MASK_JUMP = 0.35  # largest change of the mask's box between frames, in object sizes
GROWTH = (0.7, 1.4)  # of the mask's box between frames


def start_of(previous: Alignment | None, model_hash: str) -> TrackState | None:
    """The state that the next frame may start from, or None.

    None where the object was not found, the alignment is of another model or has no state, or viewpoints are to be searched again.
    """
    if previous is None or not previous.found or previous.model_hash != model_hash or previous.tracking is None:
        return None
    return previous.tracking if previous.tracking.warm_frames < REFRESH else None


def continues(state: TrackState, mask_box: tuple[float, ...] | None) -> bool:
    """Whether a frame whose mask has the given box (in L; None without a mask) may show the same object: the box has not jumped."""
    before = state.mask_box
    if before is None or mask_box is None:
        return before is None and mask_box is None
    size = max(mask_box[2] - mask_box[0], mask_box[3] - mask_box[1])
    return max(abs(now - then) for now, then in zip(mask_box, before, strict=True)) < MASK_JUMP * size


def last_seen(previous: Alignment | None, model_hash: str, longer_side: int) -> tuple[float, float, float, float] | None:
    """Box (x0, y0, x1, y1) in pixels of the mask in the frame before, where the object is looked for first.

    model_hash: of the model that is looked for; longer_side: of the image, in pixels. None where nothing can be continued, see
    :func:`start_of`, or there was no mask.
    """
    state = start_of(previous, model_hash)
    if state is None or state.mask_box is None:
        return None
    left, top, right, bottom = (round(value * longer_side + 0.5) - 0.5 for value in state.mask_box)  # edges of pixels
    return left, top, right, bottom


def warm_start(state: TrackState, observation: Observation) -> Poses:
    """:class:`Poses` (B = 1) of a state, moved with the mask's box where there is one."""
    log_focal = (state.log_focal - observation.focal.log().mean())[None] * (not observation.focal_known)
    parameters = torch.cat([state.parameters[:FOCAL], log_focal, state.parameters[FOCAL + 1 :]])
    poses = Poses(state.rotation[None], parameters[None])
    return poses if observation.field is None else _moved(poses, observation, state.box)


def _moved(poses: Poses, observation: Observation, before: Tensor) -> Poses:
    """Shift and scale by which the box of the mask changed."""
    box = observation.boxes[0]
    growth = ((box[2:] - box[:2]).sum() / (before[2:] - before[:2]).sum()).clamp(*GROWTH)
    focal = observation.focal * poses.log_focal.exp()[:, None]
    origin = focal * poses.shift + observation.principal
    target = (box[2:] + box[:2]) / 2 + growth * (origin - (before[2:] + before[:2]) / 2)
    shift, log_scale = (target - observation.principal) / focal, poses.log_scale + growth.log()
    return Poses.deformed(poses.rotation, shift, log_scale, poses.log_focal, poses.coefficients)


def needs_search(alignment: Alignment, state: TrackState) -> bool:
    """Whether a warm result is doubtful: the object was not found, or the energy is far above that of the frame before."""
    return not alignment.found or alignment.tracking is None or alignment.tracking.score - state.score > ENERGY_JUMP
