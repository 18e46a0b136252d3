"""What a picture says about keypoints that are not annotated in it: those that the object itself hides lie behind its mask.

Annotations are not missing at random: rear corners are seen where an object is deep enough to show them, so that the annotated ones
alone make the mean shape too deep. A hidden corner bounds the depth of its object from above, as a censored observation does: it may not
project beside the mask. Keypoints that an object lacks, or that something else hides, may project anywhere; how often each keypoint is
missing for such reasons is learnt from the pictures in which it would lie beside the mask by more than the shapes vary.

The most probable place of a hidden corner satisfies the mask already where half of its possible places do not, and the mean shape is
made of means, not of most probable values. So the mask acts on a few places that stand for the distribution (variational Gaussian with
cubature points): it pulls as long as a noticeable part of the distribution lies beside it.
"""

from dataclasses import dataclass

import torch

from semalign3d_core.geometry.image_grid import interpolated

START, ROUNDS = 0.2, 50  # of the rates of absence and of their estimation


@dataclass(frozen=True)
class MaskFields:
    """Distance fields of the masks of N images; see :class:`~semalign3d_core.geometry.mask_field.MaskShape`.

    offset: (N, H, H, 2) vector from every node to the nearest node in the mask, 0 inside, in units of L; beyond a side of the picture
    that cuts the object nothing is beside it; origin: (N, 2) normalised image point of node (0, 0); spacing: (N, 2) between nodes
    """

    offset: torch.Tensor
    origin: torch.Tensor
    spacing: torch.Tensor

    def beside(self, points):
        """Distance (N, K) of normalised image points (N, K, 2) from the mask, 0 inside, and the direction to it (N, K, 2)."""
        nodes = (points - self.origin[:, None]) / self.spacing[:, None]
        image = torch.arange(len(nodes))[:, None]
        offset = interpolated(lambda row, column: self.offset[image, row, column].movedim(-1, 0), self.offset.shape[1:3], nodes)
        distance = offset.norm(dim=-1)
        return distance, offset / distance.clamp(min=1e-9)[..., None]


def places_around(places, spread):
    """(4, N, K, 2) equally weighted cubature points of normal distributions in the picture, exact for polynomials of third degree.

    places: (N, K, 2) their means; spread: (N, K, 2, 2) Cholesky factors of their covariances, or None: the means alone, (1, N, K, 2).
    """
    if spread is None:
        return places[None]
    axes = 2**0.5 * spread.movedim(-1, 0)
    return torch.cat([places + axes, places - axes])


def hidden_probability(distance, variance, visible, flip):
    """(N, K) how probable it is that the object itself hides a keypoint; 0 where it is annotated.

    distance: (N, K) by which it would lie beside the mask, for all that the annotated keypoints tell; variance: (N, K) of that place;
    visible: (N, K) bool, where annotated; flip: (K,) or None. EM of a mixture: a keypoint is absent at a rate of its own (then it may
    lie anywhere), else hidden, and lies beside the mask only by the error of its predicted place.
    """
    inside = torch.special.erfc(distance / (2 * variance).sqrt())
    rate = torch.full_like(distance[0], START)
    for _ in range(ROUNDS):
        absent = rate / (rate + (1 - rate) * inside)
        rate = (absent * ~visible).mean(0)
        rate = rate if flip is None else (rate + rate[flip]) / 2
    return (1 - absent) * ~visible
