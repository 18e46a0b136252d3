"""What an alignment found, and what the next frame of a video takes from it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from semalign3d_core.alignment.gauss_newton.poses import FOCAL, Poses
from semalign3d_core.alignment.observation import Observation
from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.runtime.values import ShortRepr

REFRESH = 15  # frames after which viewpoints are searched again, so that no wrong pose survives
ENERGY_JUMP = 0.12  # rise of the energy between frames that means a cut
MASK_JUMP = 0.35  # largest change of the mask's box between frames, in object sizes
GROWTH = (0.7, 1.4)  # of the mask's box between frames


@dataclass(frozen=True, repr=False)
class TrackState(ShortRepr):
    """Where the object was: what the next frame of a video starts from. Tensors are on the device of the model, lengths in L.

    rotation: (3, 3) and parameters: (5 + M,) of the solution before keypoint bias, see :class:`~.gauss_newton.poses.Poses`
    log_focal:   () mean logarithm of the focal length
    margin, lead: () advantages over the best rival, kept because a warm start has no rivals of its own
    box:         (4,) x0, y0, x1, y1 that the object filled;  mask_box: the same of the mask, as numbers; None without a mask
    score:       energy of the solution, less the bonus for agreeing with the depth map
    warm_frames: number of frames since viewpoints were searched
    """

    rotation: Tensor
    parameters: Tensor
    log_focal: Tensor
    margin: Tensor
    lead: Tensor
    box: Tensor
    mask_box: tuple[float, ...] | None
    score: float
    warm_frames: int


@dataclass(frozen=True, repr=False)
class Alternatives(ShortRepr):
    """All B solutions of an image that were compared, the reported one among them (that with the lowest score).

    keypoints_3d: (B, K, 3) camera frame, in the unit of the alignment;  keypoints_2d: (B, K, 2) pixels; both NaN for absent keypoints
    focal:       (B, 2) focal lengths in units of L;  rotations: (B, 3, 3) object to camera
    scores:      (B,) energy, less the bonus for agreeing with the depth map;  depth_order: (B,) correlation with the depth map
    """

    keypoints_3d: Tensor
    keypoints_2d: Tensor
    focal: Tensor
    rotations: Tensor
    scores: Tensor
    depth_order: Tensor


@dataclass(frozen=True, repr=False)
class Diagnostics(ShortRepr):
    """How an alignment came about, for reports.

    statistics, probabilities: {name: float}, what the confidence is computed from and all parts of it, see ``judgement.py``
    trace:     (steps,) least energy of the solver at every step;  phases: ((first step, number of starts), ...) of the solver
    starts_2d: (S, K', 2) pixels of the present keypoints where the solver began;  start_scores: (S,), larger is better; None if unknown
    """

    statistics: dict[str, float]
    probabilities: dict[str, float]
    trace: Tensor
    phases: tuple[tuple[int, int], ...]
    starts_2d: Tensor | None = None
    start_scores: Tensor | None = None


@dataclass(frozen=True, repr=False)
class Alignment(ShortRepr):
    """A category model aligned to one image (method, section 2). K keypoints, P dense points.

    category, model_hash: which model was aligned
    keypoint_names:  K names
    keypoints_3d:    (K, 3) camera frame (x right, y down, z forward); unit as ``scale_kind`` says; NaN for absent keypoints
    keypoints_2d:    (K, 2) pixels; NaN for absent keypoints
    visible:         (K,) bool: inside the image, not hidden by the object itself, not hidden behind the depth map
    keypoint_confidence: (K,) in [0, 1]
    cloud_3d:        (P, 3) dense points, camera frame
    rotation:        (3, 3) object to camera; translation: (3,); scale: float, so that x = scale R X + t
    camera:          :class:`PinholeCamera` with the focal length of the solution
    scale_kind:      ``metric`` (metres) or ``relative`` (up to scale)
    energy:          float, Eq. 13 of the reported keypoints; terms: {name: float}, unweighted
    confidence:      calibrated probability that the pose is right and the object is in the image
    found:           False when the object is judged not to be in the image
    undetermined_axis: (3,) unit vector, object frame, about which the pose is not determined; None otherwise
    tracking:        :class:`TrackState` for the next frame;  alternatives: all solutions, for the transfer between two images
    diagnostics:     how the alignment came about, for reports; each of the three may be None
    """

    category: str
    model_hash: str
    keypoint_names: tuple[str, ...]
    keypoints_3d: Tensor
    keypoints_2d: Tensor
    visible: Tensor
    keypoint_confidence: Tensor
    cloud_3d: Tensor
    rotation: Tensor
    translation: Tensor
    scale: float
    camera: PinholeCamera
    scale_kind: str
    energy: float
    terms: dict[str, float]
    confidence: float
    found: bool
    undetermined_axis: Tensor | None = None
    tracking: TrackState | None = None
    alternatives: Alternatives | None = None
    diagnostics: Diagnostics | None = None

    def __repr__(self) -> str:
        return (
            f"Alignment({self.category}, {'found' if self.found else 'not found'}, confidence {self.confidence:.2f}, "
            f"{int(self.visible.sum())} of {len(self.keypoint_names)} keypoints visible, {self.scale_kind} scale)"
        )


def inside_image(pixels: Tensor, camera: PinholeCamera) -> Tensor:
    """(...,) bool: pixels (..., 2) that lie on the image of a camera; NaN does not."""
    return ((pixels > -0.5) & (pixels < pixels.new_tensor([camera.width, camera.height]) - 0.5)).all(-1)


# Video: starting from the alignment of the frame before, and knowing when not to.


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
