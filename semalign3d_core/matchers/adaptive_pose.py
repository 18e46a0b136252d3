"""Test-time pose alignment by the instance matching distance (IMD), and pose prediction from template sets.

Source: GeoAware-SC (Telling Left from Right, CVPR 2024), sections 3.2 and 4.1: the source image is mirrored when that
brings it nearer to the target. Tokens are (cells * cells, C), row-major, unit norm; keypoints live on the 840 canvas.
"""

from dataclasses import dataclass

import torch

from semalign3d_core.errors import InputError
from semalign3d_core.image_grid import CANVAS_SIDE, mirror_points, pad_square
from semalign3d_core.matchers import Matches
from semalign3d_core.matchers.soft_argmax import SimilarityMatcher, transfer_on_canvas

VIEWS = ("back", "front", "left", "right")
MASKED_VALUE = -100000.0  # what the published code writes over entries that are exactly 0


def masked_imd(source, target, source_mask, target_mask, cells=64, parity=False):
    """Instance matching distance: mean over the source's object of the distance to the nearest feature of the target's.

    source, target: (P, C) tokens;  source_mask, target_mask: (h, w), any size, above 0.5 is object;
    cells: side of the grid on which they are compared (64 for pose alignment, 128 for pose prediction);
    parity: as published, every entry that is exactly 0 counts as masked, also inside the object (ReLU features).
    Returns a 0-d tensor; infinity when the target's mask is empty, NaN when only the source's is.
    """
    source, source_inside = _on_grid(source, source_mask, cells)
    target, target_inside = _on_grid(target, target_mask, cells)
    if parity:
        source, target = _overwrite_zeros(source, source_inside), _overwrite_zeros(target, target_inside)
    else:
        target = target[target_inside]
    if not len(target):
        return source.new_tensor(torch.inf)
    return _nearest(source[source_inside], target)[0].mean()


def _on_grid(tokens, mask, cells):
    """Tokens (cells * cells, C), bilinear, and which of them lie inside ``mask`` (cells * cells,), nearest."""
    side = round(len(tokens) ** 0.5)
    grid = tokens.T.reshape(1, -1, side, side)
    features = torch.nn.functional.interpolate(grid, size=(cells, cells), mode="bilinear", align_corners=False)
    mask = torch.as_tensor(mask).to(features)[None, None]
    inside = torch.nn.functional.interpolate(mask, size=(cells, cells), mode="nearest")
    return features[0].flatten(1).T, inside.flatten() > 0.5


def _overwrite_zeros(tokens, inside):
    masked = tokens * inside[:, None]
    return torch.where(masked == 0, MASKED_VALUE, masked)


def _nearest(source, target, chunk=512):
    """(distance, index) (P,) of the nearest row of ``target`` for each row of ``source``, a chunk at a time."""
    found = [_smallest(part, target) for part in source.split(chunk)]
    if not found or not len(source):
        return source.new_zeros(0), torch.zeros(0, dtype=torch.long)
    distances, indices = zip(*found, strict=True)
    return torch.cat(distances), torch.cat(indices)


def _smallest(part, target):
    # the expanded square loses digits for nearly equal features and for the overwritten zeros
    return torch.cdist(part, target, compute_mode="donot_use_mm_for_euclid_dist").min(dim=1)


def mutual_nearest_distance(source, target):
    """Mask-free variant: mean distance of the source tokens that are the nearest of their own nearest target (0-d)."""
    distance, forward = _nearest(source, target)
    _, backward = _nearest(target, source)
    return distance[backward[forward] == torch.arange(len(source), device=source.device)].mean()


def conditional_permutation(permutation, visible):
    """The mirror permutation (K,) in which a pair is swapped only if both members are ``visible`` (K,)."""
    return torch.where(visible & visible[permutation], permutation, torch.arange(len(permutation), device=permutation.device))


def mirror_canvas_keypoints(keypoints, permutation, visible):
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

    def __post_init__(self):
        masks = (self.source_mask, self.mirrored_mask, self.target_mask)
        if any(m is None for m in masks) and any(m is not None for m in masks):
            raise InputError("pose alignment needs masks of source, mirrored source and target, or none of them")
        if len(self.permutation) != len(self.source_keypoints) or len(self.source_keypoints) != len(self.target_keypoints):
            raise InputError("source keypoints, target keypoints and mirror permutation must have the same length")

    def distances(self, parity=False):
        """(distance of the source, distance of the mirrored source) to the target."""
        if self.target_mask is None:
            return mutual_nearest_distance(self.source, self.target), mutual_nearest_distance(self.mirrored, self.target)
        return (
            masked_imd(self.source, self.target, self.source_mask, self.target_mask, parity=parity),
            masked_imd(self.mirrored, self.target, self.mirrored_mask, self.target_mask, parity=parity),
        )


def adaptive_transfer(pair, readout="window_soft_argmax", width=5):
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


@dataclass(frozen=True)
class AdaptivePoseMatcher:
    """Zero-shot pose alignment behind the matcher protocol, on any feature grid and in image pixels.

    readout, width: how positions are read off, see :mod:`.soft_argmax`;  use_masks: masked distance where all masks are known
    """

    readout: str = "window_soft_argmax"
    width: float = 5
    use_masks: bool = True
    name = "adaptive_pose"
    uses_mirror = True

    def match(self, source, target, points, mirrored=None, permutation=None, visible=None):
        """Carries the keypoints ``points`` (K, 2), pixels of ``source``, to ``target``: :class:`Matches`.

        mirrored:    :class:`ImageEvidence` of the source's mirror image;  permutation: (K,) mirror permutation of the points;
        visible:     (K,) bool, which of them are visible in both images; None: all
        Raises :class:`InputError` without the mirror image or the permutation: pose alignment cannot do without.
        """
        if mirrored is None or permutation is None:
            raise InputError(f"{source.name}: adaptive_pose needs the source's mirror image and the mirror permutation of its keypoints")
        matcher = SimilarityMatcher(self.readout, self.width)
        found = matcher.match(source, target, points)
        if not self.distance(mirrored, target) < self.distance(source, target):
            return found
        visible = torch.ones(len(points), dtype=torch.bool) if visible is None else visible
        turned = mirror_points(points, source.features.grid.width)[conditional_permutation(permutation, visible)]
        other = matcher.match(mirrored, target, turned)
        replace = visible & visible[permutation]
        return Matches(
            torch.where(replace[:, None], other.points, found.points), torch.where(replace, other.confidence, found.confidence)
        )

    def distance(self, source, target):
        """Instance matching distance (0-d) of two :class:`ImageEvidence`."""
        tokens = [e.features.values.flatten(1).T for e in (source, target)]
        if not self.use_masks or source.mask is None or target.mask is None:
            return mutual_nearest_distance(*tokens)
        masks = [pad_square(e.mask.float()[None], e.features.grid.padding)[0] for e in (source, target)]
        return masked_imd(*tokens, *masks)


def template_distances(query, templates, query_mask, cells=128):
    """Distances (T,) of a query (P, C) with its mask to ``templates`` (T, P, C) without masks."""
    everywhere = torch.ones(1, 1)
    return torch.stack([masked_imd(query, template, query_mask, everywhere, cells) for template in templates])


def vote_pose(distances):
    """Pose of queries from ``distances`` (Q, 4 S) to S template sets in the order of ``VIEWS``.

    Returns (front or back, left or right, one of four), each (Q,) int64 indices into ``VIEWS``. Two-way: front (right) wins
    when it is nearer than back (left) in at least two thirds of the sets (2 of 3). Four-way: the majority of the sets' nearest
    views; ties go to the earlier view.
    """
    if distances.ndim != 2 or distances.shape[1] % len(VIEWS):
        raise InputError(f"template distances must be (queries, 4 x sets), got {tuple(distances.shape)}")
    sets = distances.reshape(len(distances), -1, len(VIEWS))
    needed = (2 * sets.shape[1] + 2) // 3
    front = (sets[:, :, 0] - sets[:, :, 1] > 0).sum(1) >= needed
    right = (sets[:, :, 2] - sets[:, :, 3] > 0).sum(1) >= needed
    counts = torch.nn.functional.one_hot(sets.argmin(dim=2), len(VIEWS)).sum(1)
    return front.long(), right.long() + 2, counts.argmax(dim=1)
