"""Test-time pose alignment: the source image is mirrored when that brings it nearer to the target.

Source: GeoAware-SC (Telling Left from Right, CVPR 2024), section 3.2. Tokens are (cells * cells, C), row-major, unit norm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from semalign3d_core.geometry.image_grid import mirror_points, rotate_points
from semalign3d_core.matchers.imd import masked_imd, mutual_nearest_distance
from semalign3d_core.matchers.matcher import Matcher
from semalign3d_core.matchers.soft_argmax import SimilarityMatcher
from semalign3d_core.perception.evidence import ImageEvidence
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.transfer.matches import Matches


def conditional_permutation(permutation: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """The mirror permutation (K,) in which a pair is swapped only if both members are ``visible`` (K,)."""
    return torch.where(visible & visible[permutation], permutation, torch.arange(len(permutation), device=permutation.device))


@dataclass(frozen=True)
class AdaptivePoseMatcher(Matcher):
    """Zero-shot pose alignment behind the matcher protocol, on any feature grid and in image pixels.

    readout, width: how positions are read off, see :mod:`.soft_argmax`;  use_masks: masked distance where all masks are known
    quarters: rotations of the source that are tried beside it and its mirror image, in quarters anticlockwise; published are none
    """

    readout: str = "window_soft_argmax"
    width: float = 5
    use_masks: bool = True
    quarters: tuple[int, ...] = ()
    name = "adaptive_pose"
    uses_mirror = True

    def match(
        self,
        source: ImageEvidence,
        target: ImageEvidence,
        points: torch.Tensor,
        mirrored: ImageEvidence | None = None,
        permutation: torch.Tensor | None = None,
        visible: torch.Tensor | None = None,
        turned: Sequence[ImageEvidence] = (),
    ) -> Matches:
        """Carries the keypoints ``points`` (Q, 2), pixels of ``source``, to ``target``: :class:`Matches`.

        mirrored:    :class:`ImageEvidence` of the source's mirror image;  permutation: (Q,) mirror permutation of the points;
        visible:     (Q,) bool, which of them, with their partners, are visible in both images; None: all
        turned:      :class:`ImageEvidence` of the source turned by each of ``quarters``
        Raises :class:`InputError` without the mirror image or the permutation: pose alignment cannot do without.
        """
        if mirrored is None or permutation is None:
            raise InputError(f"{source.name}: adaptive_pose needs the source's mirror image and the mirror permutation of its keypoints")
        matcher = SimilarityMatcher(self.readout, self.width)
        found = matcher.match(source, target, points)
        distances = torch.stack([self.distance(image, target) for image in (source, mirrored, *turned)])
        nearest = int(distances.nan_to_num(nan=torch.inf).argmin())  # the first of equal ones: the source as it is
        if nearest == 0 or distances[0].isnan():
            return found
        if nearest == 1:
            return through_mirror(matcher, (source, mirrored, target), points, permutation, visible, found)
        grid = source.features.grid
        return matcher.match(turned[nearest - 2], target, rotate_points(points, grid.height, grid.width, self.quarters[nearest - 2]))

    def distance(self, source: ImageEvidence, target: ImageEvidence) -> torch.Tensor:
        """Instance matching distance (0-d) of two :class:`ImageEvidence`."""
        a, b = (e.features.values.flatten(1).T for e in (source, target))
        if not self.use_masks or source.mask is None or target.mask is None:
            return mutual_nearest_distance(a, b)
        pairs = ((source.features.grid, source.mask), (target.features.grid, target.mask))
        mask_a, mask_b = (grid.square(mask.float()[None])[0] for grid, mask in pairs)
        return masked_imd(a, b, mask_a, mask_b)


def through_mirror(
    matcher: SimilarityMatcher,
    images: tuple[ImageEvidence, ImageEvidence, ImageEvidence],
    points: torch.Tensor,
    permutation: torch.Tensor,
    visible: torch.Tensor | None,
    found: Matches,
) -> Matches:
    """``found`` with the points replaced that the mirrored source decides: (Q,) :class:`Matches`.

    images: evidence of source, its mirror image and target;  points, permutation, visible: see :meth:`AdaptivePoseMatcher.match`
    """
    source, mirrored, target = images
    visible = torch.ones(len(points), dtype=torch.bool, device=points.device) if visible is None else visible
    turned = mirror_points(points, source.features.grid.width)[conditional_permutation(permutation, visible)]
    other = matcher.match(mirrored, target, turned)
    replace = visible & visible[permutation]
    return Matches(torch.where(replace[:, None], other.points, found.points), torch.where(replace, other.confidence, found.confidence))
