"""The annotated keypoints of all training images as tensors: what the shape is found from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from semalign3d_core.category.annotations.views import NO_DEPTH, View, published_depth
from semalign3d_core.geometry.image_grid import interpolated


@dataclass(frozen=True)
class Outline:
    """Depth readings beside the keypoints, for objects whose keypoints are the two sides of their outline; all float64 or bool.

    inset: (N, K) distance in the image (units of L) from the outline to the pixel where the depth of each keypoint is read;
    middle: (N, K) relative inverse depth half-way to the mirror partner, 0 where unknown; measured: (N, K) bool, where known
    """

    inset: Tensor
    middle: Tensor
    measured: Tensor

    def only(self, keypoints: Tensor) -> "Outline":
        """The readings of the keypoints alone: (K,) bool, or their numbers in any order."""
        return Outline(self.inset[:, keypoints], self.middle[:, keypoints], self.measured[:, keypoints])


@dataclass(frozen=True)
class MaskFields:
    """Distance fields of the masks of N images; see :class:`~semalign3d_core.geometry.mask_field.MaskShape`.

    offset: (N, H, H, 2) vector from every node to the nearest node in the mask, 0 inside, in units of L; beyond a side of the image
    that cuts the object the vector is 0 too; origin: (N, 2) normalised image point of node (0, 0); spacing: (N, 2) between nodes
    """

    offset: Tensor
    origin: Tensor
    spacing: Tensor

    def beside(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Distance (N, K) of normalised image points (N, K, 2) from the mask, 0 inside, and the direction to it (N, K, 2)."""
        nodes = (points - self.origin[:, None]) / self.spacing[:, None]
        image = torch.arange(len(nodes))[:, None]
        offset = interpolated(lambda row, column: self.offset[image, row, column].movedim(-1, 0), self.offset.shape[1:3], nodes)
        distance = offset.norm(dim=-1)
        return distance, offset / distance.clamp(min=1e-9)[..., None]


@dataclass(frozen=True)
class Constellations:
    """What N images say about the K keypoints that take part; all float64.

    points:   (N, K, 2) normalised image points minus the principal point; 0 where not visible
    visible:  (N, K) bool
    inverse:  (N, K) relative inverse depth at the keypoints in units of the object's own range (5th percentile over the
              mask 0, 95th 1); 0 where unknown
    measured: (N, K) bool, where ``inverse`` is known
    slope:    (N,) known b of ``1/z = (1 + b inverse) / z_far`` where depth is given up to scale only; NaN for disparity
    size:     (N,) longer side of the object's box in units of L
    focal:    (N,) focal length in units of L (measured, or the assumed one)
    focal_known: (N,) bool, where ``focal`` is measured; only for the published steps
    flip:     (K,) int64, label in the mirror image, or None where the category has no symmetry
    corrected: (N, K, 2) like ``points``, where the depth of the keypoints was read: moved into the mask; only for the published steps
    depth:    (N, K) z at the keypoints by the published formula (:func:`published_depth`), 0 where unknown; only for the published steps
    outline:  :class:`Outline`, or None without symmetry
    masks:    :class:`MaskFields`, or None where nothing is known of the masks
    """

    points: Tensor
    visible: Tensor
    inverse: Tensor
    measured: Tensor
    slope: Tensor
    size: Tensor
    focal: Tensor
    focal_known: Tensor
    flip: Tensor | None
    corrected: Tensor
    depth: Tensor
    outline: Outline | None
    masks: MaskFields | None

    def only(self, keypoints: Tensor) -> "Constellations":
        """The same images with the keypoints (K',) bool alone; mirror partners must stay together."""
        number = torch.cumsum(keypoints.long(), 0) - 1
        return replace(self._in_order(keypoints), flip=None if self.flip is None else number[self.flip[keypoints]])

    @property
    def exchanged(self) -> "Constellations":
        """The same images with left and right labels exchanged; the same where the category has no symmetry."""
        return self if self.flip is None else self._in_order(self.flip)

    def _in_order(self, keypoints: Tensor) -> "Constellations":
        per_keypoint = ("points", "visible", "inverse", "measured", "corrected", "depth")
        outline = None if self.outline is None else self.outline.only(keypoints)
        return replace(self, outline=outline, **{name: getattr(self, name)[:, keypoints] for name in per_keypoint})

    @property
    def count(self) -> int:
        """Number of keypoints K."""
        return self.points.shape[1]


def constellations(views: Sequence[View], labels: Tensor, flip: Tensor | None) -> Constellations:
    """:class:`Constellations` of the keypoints ``labels`` (K',) of all views.

    flip: (K,) label of each of the category's keypoints in the mirror image, or None without symmetry.
    """
    position = torch.full((len(views[0].keypoints),), -1)
    position[labels] = torch.arange(len(labels))
    longer = _stacked(views, "longer_side")
    focal, principal = _stacked(views, "focal"), _stacked(views, "principal")
    stretch = focal[:, :1] / focal  # focal lengths of the two axes are brought to one, that of x, by stretching y

    def normalised(pixels: Tensor) -> Tensor:
        return (pixels / longer[:, None, None] - principal[:, None]) * stretch[:, None]

    def relative(inverse: Tensor) -> Tensor:
        return (inverse - low[:, None]) / (high - low)[:, None]

    pixels, corrected = (_stacked(views, name)[:, labels] for name in ("keypoints", "corrected"))
    low, high = _stacked(views, "inverse_range").unbind(1)
    visible = ~torch.isnan(pixels[..., 0])
    inverse = relative(_stacked(views, "keypoint_inverse")[:, labels])
    box = _stacked(views, "box")
    return Constellations(
        points=normalised(pixels).nan_to_num(nan=0.0),
        visible=visible,
        inverse=torch.where(visible & torch.isfinite(inverse), inverse, 0.0),
        measured=visible & torch.isfinite(inverse),
        slope=torch.where(torch.tensor([v.kind in ("disparity", NO_DEPTH) for v in views]), torch.nan, (high - low) / low),
        size=(box[:, 2:] - box[:, :2]).amax(1) / longer,
        focal=focal[:, 0],
        focal_known=torch.stack([v.focal_known for v in views]),
        flip=None if flip is None else position[flip[labels]],
        corrected=normalised(corrected).nan_to_num(nan=0.0),
        depth=torch.stack([published_depth(v, v.keypoint_inverse) for v in views])[:, labels].double().nan_to_num(nan=0.0),
        outline=None if flip is None else _outline(views, labels, longer, relative),
        masks=_mask_fields(views, principal, stretch),
    )


def _outline(views: Sequence[View], labels: Tensor, longer: Tensor, relative: Callable[[Tensor], Tensor]) -> Outline:
    middle = relative(_stacked(views, "middle_inverse")[:, labels])
    inset = _stacked(views, "keypoint_inset")[:, labels] / longer[:, None]
    return Outline(inset.nan_to_num(nan=0.0), middle.nan_to_num(nan=0.0), torch.isfinite(middle))


def _mask_fields(views: Sequence[View], principal: Tensor, stretch: Tensor) -> MaskFields:
    """:class:`MaskFields` in the normalised coordinates of the image points."""
    nodes = views[0].mask_offset.shape[0] // 2  # per longer side; the field is twice as large
    origin = _stacked(views, "mask_origin")
    return MaskFields(torch.stack([v.mask_offset for v in views]), (origin - principal) * stretch, stretch / nodes)


def _stacked(views: Sequence[View], name: str) -> Tensor:
    """An attribute of all views as one float64 tensor (N, ...)."""
    return torch.stack([torch.as_tensor(getattr(view, name)) for view in views]).double()
