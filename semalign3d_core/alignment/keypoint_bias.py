"""Where annotated keypoints lie beside the places at which features look like them.

A patch that touches the object's border shows less of the object and more of what is behind it, so that the features of a corner
are found a little inside the object, and an aligned shape comes out a few percent too small. The mean difference to the
annotations of the training images, per keypoint and in the object's own frame, is learned when the category is built
(``CategoryModel.calibration``, ``offset.<keypoint>.<axis>``) and added to what is reported. The solver itself knows nothing of it.
"""

import torch

from semalign3d_core.alignment.gauss_newton.poses import project_points

AXES = "xyz"
ACCEPTED = 0.15  # median error, in object sizes, up to which an aligned training image tells of offsets
CUSTOMARY = 0.08  # error in object sizes from which an observation counts less and less
PULL = 2.0  # observations that speak for no offset


def stored_offsets(offsets):
    """{name: float} of offsets (K, 3) for ``CategoryModel.calibration``."""
    return {f"offset.{k}.{axis}": float(value) for k, row in enumerate(offsets) for axis, value in zip(AXES, row, strict=True)}


def read_offsets(calibration, keypoints, like):
    """(K', 3) offsets of the keypoints with the given indices (K',), in diameters; None if the calibration has none."""
    if f"offset.0.{AXES[0]}" not in calibration:
        return None
    return torch.tensor([[calibration[f"offset.{k}.{axis}"] for axis in AXES] for k in keypoints.tolist()]).to(like)


def with_offsets(keypoints, rotations, shape, offsets):
    """Keypoints (B, K', 3) in the camera frame, each moved by its offset (K', 3); rotations: (B, 3, 3); shape: (K', 3) X0."""
    if offsets is None:
        return keypoints
    spread = (keypoints - keypoints.mean(1, keepdim=True)).flatten(1).norm(dim=1) / (shape - shape.mean(0)).norm()
    return keypoints + spread[:, None, None] * (offsets @ rotations.transpose(1, 2))


def candidates_with_offsets(alignment, shape, offsets):
    """(B, K', 2) pixels of the candidates of an alignment that was made without offsets, moved by offsets (K', 3); shape: (K', 3) X0."""
    scores, camera = alignment.diagnostics, alignment.camera
    moved = with_offsets(scores["candidates_3d"], scores["rotations"], shape, offsets)
    return project_points(moved, scores["candidates_focal"], camera.principal) * camera.longer_side


def estimated_offsets(model, alignments, annotations):
    """(K, 3) offsets of a :class:`CategoryModel` by robust least squares over aligned training images.

    alignments: N :class:`Alignment` without offsets; annotations: (N, K, 2) pixels, NaN where not annotated. An observation of a
    keypoint is also one of its mirror partner.
    """
    count = len(model.present)
    matrix, vector = (PULL * torch.eye(3).repeat(count, 1, 1)), torch.zeros(count, 3)
    mirror, flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0])), torch.tensor(model.flip_permutation)
    for alignment, truth in zip(alignments, annotations, strict=True):
        known = torch.isfinite(truth).all(-1) & model.present
        if int(known.sum()) < 2:
            continue
        size = (truth[known].amax(0) - truth[known].amin(0)).amax().clamp(min=1e-6)
        miss = (truth - alignment.keypoints_2d)[known] / size
        if not float(miss.norm(dim=1).median()) < ACCEPTED:
            continue
        labels, slope = known.nonzero()[:, 0], _slopes(alignment)[known] / size
        weight = 1 / (1 + (miss.norm(dim=1) / CUSTOMARY) ** 2)
        for place, turned in ((labels, slope), (flip[labels], slope @ mirror)):
            matrix.index_add_(0, place, weight[:, None, None] * turned.transpose(1, 2) @ turned)
            vector.index_add_(0, place, weight[:, None] * (turned.transpose(1, 2) @ miss[..., None])[..., 0])
    return torch.linalg.solve(matrix, vector) * model.present[:, None]


def _slopes(alignment):
    """(K, 2, 3) derivative of the keypoints' pixels by their offsets in diameters of the object frame."""
    focal, depth = alignment.camera.focal * alignment.camera.longer_side, alignment.keypoints_3d[:, 2]
    ray = alignment.keypoints_3d[:, :2] / depth[:, None]
    plane = alignment.rotation[None, :2] - ray[..., None] * alignment.rotation[None, 2:]
    return alignment.scale * (focal[:, None] * plane) / depth[:, None, None]
