"""Keypoint transfer and pose alignment on the published square canvas (GeoAware-SC, section 3.2); the product works on any image."""

from dataclasses import dataclass

import torch

from semalign3d_core.geometry.image_grid import CANVAS_CELLS, CANVAS_SIDE, patch_index
from semalign3d_core.geometry.readouts import READOUTS
from semalign3d_core.matchers.adaptive_pose import conditional_permutation
from semalign3d_core.matchers.imd import masked_imd, mutual_nearest_distance


def transfer_on_canvas(
    source: torch.Tensor, target: torch.Tensor, keypoints: torch.Tensor, readout: str = "window_soft_argmax", width: int = 7
) -> torch.Tensor:
    """Published keypoint transfer on the square canvas: (K, 2) predicted canvas pixels.

    source, target: (3600, C) unit-norm tokens, row-major; keypoints: (K, 2 or more) canvas pixels of the source;
    readout, width: see ``READOUTS``. The prediction of cell ``p`` is its centre ``14 p + 7``.
    """
    similarity = source[patch_index(keypoints)] @ target.T
    position = READOUTS[readout](similarity.reshape(-1, CANVAS_CELLS, CANVAS_CELLS), width)
    cell = CANVAS_SIDE / CANVAS_CELLS
    return position.clamp(0, CANVAS_CELLS - 1) * cell + cell / 2


def mirror_canvas_keypoints(keypoints: torch.Tensor, permutation: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Keypoints (K, 3) of the mirrored canvas: ``x -> 840 - x``, rows in the order of the conditional permutation."""
    mirrored = keypoints.clone()
    mirrored[:, 0] = CANVAS_SIDE - mirrored[:, 0]
    return mirrored[conditional_permutation(permutation, visible)]


@dataclass(frozen=True)
class PosePair:
    """A source and a target on the published canvas.

    source, mirrored, target: (3600, C) unit-norm tokens of the source, of its mirror image and of the target
    source_keypoints, target_keypoints: (K, 3) canvas x, y, visibility;  permutation: (K,) int64 mirror permutation
    source_mask, mirrored_mask, target_mask: (h, w), or None for the mask-free distance
    """

    source: torch.Tensor
    mirrored: torch.Tensor
    target: torch.Tensor
    source_keypoints: torch.Tensor
    target_keypoints: torch.Tensor
    permutation: torch.Tensor
    source_mask: torch.Tensor | None = None
    mirrored_mask: torch.Tensor | None = None
    target_mask: torch.Tensor | None = None

    def distances(self, parity: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """(distance of the source, distance of the mirrored source) to the target."""
        if self.source_mask is None or self.mirrored_mask is None or self.target_mask is None:
            return mutual_nearest_distance(self.source, self.target), mutual_nearest_distance(self.mirrored, self.target)
        return (
            masked_imd(self.source, self.target, self.source_mask, self.target_mask, parity=parity),
            masked_imd(self.mirrored, self.target, self.mirrored_mask, self.target_mask, parity=parity),
        )


def adaptive_transfer(pair: PosePair, readout: str = "window_soft_argmax", width: int = 5) -> torch.Tensor:
    """Keypoint transfer with the pose alignment of :class:`PosePair` ``pair``: (K, 2) canvas pixels of the target.

    The mirrored source decides a keypoint only if it is strictly nearer to the target and the keypoint and its mirror
    partner are visible in both images.
    """
    prediction = transfer_on_canvas(pair.source, pair.target, pair.source_keypoints, readout, width)
    distance, mirrored_distance = pair.distances()
    if not mirrored_distance < distance:  # also when a distance is NaN
        return prediction
    visible = (pair.source_keypoints[:, 2] * pair.target_keypoints[:, 2]) > 0
    keypoints = mirror_canvas_keypoints(pair.source_keypoints, pair.permutation, visible)
    mirrored = transfer_on_canvas(pair.mirrored, pair.target, keypoints, readout, width)
    replace = visible & visible[pair.permutation]
    return torch.where(replace[:, None], mirrored, prediction)
