"""What an alignment found."""

from dataclasses import dataclass, field

import torch

from semalign3d_core.geometry.camera import PinholeCamera


@dataclass(frozen=True)
class Alignment:
    """A category model placed in one image (method, section 2). K keypoints, P dense points.

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
    energy:          float, total of Eq. 13 at the final sigma; terms: {name: float}, unweighted
    confidence:      calibrated probability that the pose is right
    found:           False when the object is judged not to be in the image
    undetermined_axis: (3,) unit vector, object frame, about which the pose is not determined; None otherwise
    diagnostics:     {name: tensor or float}: rivals, margin, trace of the energy ... for whoever looks closer
    """

    category: str
    model_hash: str
    keypoint_names: tuple
    keypoints_3d: torch.Tensor
    keypoints_2d: torch.Tensor
    visible: torch.Tensor
    keypoint_confidence: torch.Tensor
    cloud_3d: torch.Tensor
    rotation: torch.Tensor
    translation: torch.Tensor
    scale: float
    camera: PinholeCamera
    scale_kind: str
    energy: float
    terms: dict
    confidence: float
    found: bool
    undetermined_axis: torch.Tensor | None = None
    diagnostics: dict = field(default_factory=dict, repr=False)
