"""What the transfer needs of a category and of one aligned image, computed once whatever the number of pairs."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from semalign3d_core.alignment.result import Alignment
from semalign3d_core.alignment.visibility import BEHIND, behind_depth_map, behind_front
from semalign3d_core.category.model import CategoryModel
from semalign3d_core.category.surface.surface_map import SurfaceMap
from semalign3d_core.geometry.rotations import shape_diameter
from semalign3d_core.perception.evidence import DepthMap, FeatureMap, ImageEvidence
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.values import ShortRepr

NEIGHBOURS = 12  # points around a point, from which the local map between two images is fitted
HOPELESS = 0.05  # what is this much worse in score than the best solution of an image is no solution of it
DIFFERENT = 0.02  # object sizes by which the keypoints of a further solution lie beside those of better ones, on average


@dataclass(frozen=True, repr=False)
class CategorySurface(ShortRepr):
    """All points of a category, dense then sparse: J = P + K. Made once per model by ``category_surface``.

    features (J, C), mu (J,), sd (J,): what each point looks like;  surface: :class:`SurfaceMap`, its place is ``surface @ X``
    neighbours (J, N) int64: the usable points nearest to it on the mean shape
    is_keypoint (J,) bool;  usable (J,) bool, False for absent keypoints
    """

    features: Tensor
    mu: Tensor
    sd: Tensor
    surface: SurfaceMap
    neighbours: Tensor
    is_keypoint: Tensor
    usable: Tensor

    def keypoints(self) -> Tensor:
        """(K,) int64: the index of every keypoint among the J points."""
        return self.is_keypoint.nonzero()[:, 0]


@dataclass(frozen=True, repr=False)
class AlignedImage(ShortRepr):
    """One image as the transfer sees it; made by ``aligned_image``.

    alignment: :class:`Alignment`;  features: :class:`FeatureMap`
    keypoints:  (K, 3) camera frame, 0 where absent
    places:     (J, 2) projected points, units of L;  usable: (J,) bool, in front of the camera and not absent
    hidden:     (J,) bool, behind the object itself (no keypoint, if the object's turn is undetermined)
    occluded:   (J,) bool, behind something that the depth map shows
    size:       longer side of the projected cloud's box, units of L
    penalty:    by how much the score of this solution is worse than that of the image's best one
    others:     the image's further solutions, best first, as :class:`AlignedImage` without others
    """

    alignment: Alignment
    features: FeatureMap
    keypoints: Tensor
    places: Tensor
    usable: Tensor
    hidden: Tensor
    occluded: Tensor
    size: float
    penalty: float = 0.0
    others: tuple["AlignedImage", ...] = ()

    @property
    def solutions(self) -> tuple["AlignedImage", ...]:
        """This one and the others."""
        return (self, *self.others)


def category_surface(model: CategoryModel) -> CategorySurface:
    """The :class:`CategorySurface` of a model."""
    dense = torch.ones_like(model.dense_mu, dtype=torch.bool)
    surface, usable = model.surface.with_keypoints(), torch.cat([dense, model.present])
    points = surface @ model.shape
    distance = torch.cdist(points, points).masked_fill(~usable, torch.inf)
    return CategorySurface(
        features=torch.cat([model.dense_features, model.keypoint_features]),
        mu=torch.cat([model.dense_mu, model.keypoint_mu]),
        sd=torch.cat([model.dense_sd, model.keypoint_sd]).where(usable, 1.0),
        surface=surface,
        neighbours=distance.topk(min(NEIGHBOURS + 1, int(usable.sum())), largest=False).indices,
        is_keypoint=torch.cat([~dense, torch.ones_like(model.present)]),
        usable=usable,
    )


def aligned_image(surface: CategorySurface, evidence: ImageEvidence, alignment: Alignment) -> AlignedImage:
    """Prepares one image with its alignment and the further solutions of that.

    Raises :class:`InputError` for an alignment without any point in front of the camera.
    """
    best = _aligned(surface, evidence, alignment, 0.0)
    if best is None:
        raise InputError(f"{evidence.name}: its alignment has no point in front of the camera; align it again")
    others = [_aligned(surface, evidence, solution, penalty) for solution, penalty in _other_solutions(alignment)]
    return replace(best, others=tuple(image for image in others if image is not None))


def _other_solutions(alignment: Alignment) -> list[tuple[Alignment, float]]:
    """(alignment, penalty), best first, of the solutions besides the reported one, as far as the transfer reads an alignment."""
    found = alignment.alternatives
    if found is None:
        return []
    present, penalties = torch.isfinite(alignment.keypoints_3d[:, 0]), found.scores - found.scores.min()
    pixels, diameters = found.keypoints_2d[:, present], shape_diameter(found.keypoints_3d[:, present])
    best, *further = penalties.argsort().tolist()
    size, chosen = (pixels[best].amax(0) - pixels[best].amin(0)).max(), [best]
    for n in further:
        beside = (pixels[chosen] - pixels[n]).norm(dim=-1).mean(1).min()
        if penalties[n] < HOPELESS and beside > DIFFERENT * size:
            chosen.append(n)
    solutions = []
    for n in chosen[1:]:
        camera = alignment.camera if alignment.camera.known else alignment.camera.with_focal(found.focal[n])
        scale = alignment.scale * float(diameters[n] / diameters[best])
        bare = replace(alignment, tracking=None, alternatives=None, diagnostics=None)
        solutions.append((replace(bare, keypoints_3d=found.keypoints_3d[n], camera=camera, scale=scale), float(penalties[n])))
    return solutions


def _aligned(surface: CategorySurface, evidence: ImageEvidence, alignment: Alignment, penalty: float) -> AlignedImage | None:
    """The :class:`AlignedImage` of one solution; None if no point of it is in front of the camera."""
    keypoints = alignment.keypoints_3d.to(surface.features).nan_to_num(nan=0.0)
    points = surface.surface @ keypoints
    usable = surface.usable & (points[:, 2] > 1e-6)
    if not usable.any():
        return None
    places = alignment.camera.project(torch.where(usable[:, None], points, torch.ones_like(points)))
    extent = places[usable].amax(0) - places[usable].amin(0)
    hidden, occluded = _unseen(surface, evidence, alignment, points, places)
    size = max(extent.max().item(), 1e-3)
    return AlignedImage(alignment, evidence.features, keypoints, places, usable, hidden, occluded, size, penalty)


def _unseen(
    surface: CategorySurface, evidence: ImageEvidence, alignment: Alignment, points: Tensor, places: Tensor
) -> tuple[Tensor, Tensor]:
    """(hidden, occluded), both (J,) bool: behind the object itself, and behind something that the depth map shows."""
    dense, depth = ~surface.is_keypoint, points[:, 2]
    diameter = alignment.scale  # the mean shape has diameter 1
    seen = behind_front(places[None, dense], depth[None, dense], places[None], depth[None])[0] <= BEHIND * diameter
    occluded = torch.zeros_like(seen)
    if evidence.depth is not None:
        pixels = alignment.camera.to_pixels(places)
        usable = seen[dense]
        if evidence.mask is not None:
            column, row = pixels[dense].round().long().unbind(-1)
            mask = evidence.mask.to(seen.device)
            usable = usable & mask[row.clamp(0, mask.shape[0] - 1), column.clamp(0, mask.shape[1] - 1)]
        readings = DepthMap(evidence.depth.values.to(points), evidence.depth.kind).inverse_at(pixels)
        occluded = behind_depth_map(readings[dense], depth[dense], usable, readings, depth, diameter)
    hidden = ~seen
    if alignment.undetermined_axis is not None:
        hidden &= dense  # as in the alignment: the turn about the axis is arbitrary, and with it which keypoints it hides
    return hidden, occluded
