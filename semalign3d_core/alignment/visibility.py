"""Solutions in the image, and what of the object is seen: self-occlusion, things in front, and metric scale.

Tensors have fixed shapes: what does not count gets weight 0 and is not left out, so that the CPU need not wait for a GPU to know a number.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from semalign3d_core.alignment import energy
from semalign3d_core.alignment.category_tensors import CategoryTensors
from semalign3d_core.alignment.config import EnergyConfig
from semalign3d_core.alignment.gauss_newton.poses import project_points
from semalign3d_core.alignment.observation import Observation
from semalign3d_core.alignment.result import Alignment
from semalign3d_core.perception.evidence import DepthMap
from semalign3d_core.runtime.values import ShortRepr

CELLS = 14.0  # of the depth buffer along the longer side of the projected cloud
BEHIND = 0.12  # how far behind the front a point may be and still be seen, in object diameters
HIDDEN = 0.2  # how far in front of a point the depth map must be to hide it, in object diameters
TYPICAL_DIAMETER = 0.4  # of an object at depth 1
TRIM = 0.15  # relative deviation from the median at which a depth reading no longer counts
FEWEST = 8  # readings that a robust fit needs
ROUNDS = 2  # of reweighting


@dataclass(frozen=True, repr=False)
class ProjectedSolutions(ShortRepr):
    """B solutions in the image: what energy, choice and confidence all need of them, computed once. J points, the first P the cloud.

    points: (B, J, 3) camera frame; projected: (B, J, 2) normalised; distance: (B, P) from the cloud to the mask in L, exactly 0 inside
    it, None without a mask; behind: (B, J) how far points lie behind the front of the cloud, in the unit of depth; front: (B, P) bool,
    points of the cloud that the cloud itself does not hide
    """

    points: Tensor
    projected: Tensor
    distance: Tensor | None
    behind: Tensor
    front: Tensor

    @classmethod
    def of(cls, category: CategoryTensors, observation: Observation, keypoints: Tensor, focal: Tensor) -> "ProjectedSolutions":
        """Solutions X (B, K, 3) seen with focal lengths (B, 2)."""
        points = category.surface @ keypoints
        projected = project_points(points, focal, observation.principal)
        cloud, depth = projected[:, : category.dense], points[..., 2]
        distance = None if observation.field is None else observation.field.sample(cloud)
        behind = behind_front(cloud, depth[:, : category.dense], projected, depth)
        return cls(points, projected, distance, behind, behind[:, : category.dense] <= BEHIND * TYPICAL_DIAMETER)

    def __getitem__(self, rows: slice) -> "ProjectedSolutions":
        return self._each(lambda values: values[rows])

    def only(self, index: Tensor) -> "ProjectedSolutions":
        """The solution (B = 1) with the given index, a () tensor, which is not read."""
        return self._each(lambda values: values.index_select(0, index[None]))

    def _each(self, taken: Callable[[Tensor], Tensor]) -> "ProjectedSolutions":
        distance = None if self.distance is None else taken(self.distance)
        return ProjectedSolutions(taken(self.points), taken(self.projected), distance, taken(self.behind), taken(self.front))

    def energy(self, category: CategoryTensors, observation: Observation, weights: EnergyConfig) -> tuple[dict[str, Tensor], Tensor]:
        """The terms {name: (B,)} of Eq. 13 and their weighted sum (B,)."""
        cloud, points = self.projected.split((category.dense, len(category.shape)), 1)
        dense = observation.pixel_log, observation.pixels, cloud
        sparse = observation.keypoint_log, observation.keypoint_cells, points
        keypoints, scale = self.points[:, category.dense :], observation.object_scale
        terms = energy.terms(dense, sparse, keypoints, category.spread_betas, self.distance, scale)
        return terms, energy.total(terms, vars(weights))


def front_most(projected: Tensor, depth: Tensor, tolerance: Tensor | float, cells: float = CELLS) -> Tensor:
    """(B, P) bool: points of a cloud that it does not hide, up to a tolerance; see :func:`behind_front`."""
    return behind_front(projected, depth, projected, depth, cells) <= tolerance


def behind_front(projected: Tensor, depth: Tensor, queries: Tensor, query_depth: Tensor, cells: float = CELLS) -> Tensor:
    """(B, Q) how far points lie behind the nearest ones of a cloud by a coarse depth buffer, in the unit of depth.

    projected: (B, P, 2), depth: (B, P) of the cloud; queries (B, Q, 2), query_depth (B, Q); minus infinity where the cloud shows nothing;
    cells: of the buffer along the cloud's longer side.
    """
    low, high = projected.amin(1, keepdim=True), projected.amax(1, keepdim=True)
    step, last = ((high - low).amax(-1, keepdim=True) / cells).clamp(min=1e-9), int(cells)

    def cell_of(points: Tensor) -> Tensor:
        cell = ((points - low) / step).floor().long().clamp(0, last)  # as whole numbers: NaN has a place, too
        return cell[..., 1] * (last + 1) + cell[..., 0]

    buffer = torch.full((len(projected), (last + 1) ** 2), torch.inf, dtype=depth.dtype, device=depth.device)
    buffer = buffer.scatter_reduce(1, cell_of(projected), depth, "amin")
    return query_depth - buffer.gather(1, cell_of(queries))


def behind_depth_map(
    seen: Tensor, depth: Tensor, usable: Tensor, seen_here: Tensor, depth_here: Tensor, diameter: Tensor | float
) -> Tensor:
    """(K,) bool: points that something in front of them hides, by a depth map of unknown affine scale.

    seen: (P,) inverse depth of the map at the points of the cloud, NaN where unknown; depth: (P,) their z, and which of them are
    ``usable`` (P,), that is seen on the object; seen_here, depth_here: (K,) the same of the points in question. The map is brought
    to 1/z by a robust line through the usable points.
    """
    usable = usable & torch.isfinite(seen)
    slope, offset = robust_line(seen.nan_to_num(), 1 / depth, usable.to(depth))
    surface = 1 / (slope * seen_here.nan_to_num() + offset).clamp(min=1e-6)
    enough = (usable.sum() >= FEWEST) & (slope > 0)
    return enough & torch.isfinite(seen_here) & (surface < depth_here - HIDDEN * diameter)


def robust_line(x: Tensor, y: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and offset () of a rising y = slope x + offset by least squares with weights (N,), reweighted with a Cauchy weight.

    It begins with the line through the quartiles, for readings on something in front lie far out and would tilt a plain fit.
    """
    usable, both = weights > 0, torch.stack([x, y])
    quartiles = masked_quartiles(both, usable)
    centre, extent = quartiles[:, 1], quartiles[:, 2] - quartiles[:, 0]
    x, y = (both - centre[:, None]).unbind(0)  # about the medians, so that sums of squares lose no digits
    slope, offset = extent[1] / extent[0].clamp(min=1e-12), torch.zeros_like(extent[0])
    moments = torch.stack([torch.ones_like(x), x, y, x * x, x * y])
    for _ in range(ROUNDS):
        residual = torch.addcmul(y - offset, slope, x, value=-1).abs()
        weight = weights / (1 + (residual / masked_quartiles(residual, usable)[1].clamp(min=1e-6)).square())
        total, sum_x, sum_y, sum_xx, sum_xy = (moments @ weight).unbind(0)
        slope = (total * sum_xy - sum_x * sum_y) / (total * sum_xx - sum_x * sum_x).clamp(min=1e-12)
        offset = (sum_y - slope * sum_x) / total.clamp(min=1e-9)
    return slope, offset + centre[1] - slope * centre[0]


def masked_quartiles(values: Tensor, usable: Tensor) -> Tensor:
    """(..., 3) lower quartiles of the usable (N,) ones of values (..., N); 0 if there are none."""
    ordered = torch.where(usable, values, torch.inf).sort().values
    last = (usable.sum() - 1).clamp(min=0)
    index = torch.arange(1, 4, device=last.device) * last // 4
    return ordered.index_select(-1, index).nan_to_num(posinf=0.0)


def metric_scale(seen: Tensor, depth: Tensor, usable: Tensor) -> Tensor:
    """The factor () from the camera frame to metres; NaN if too little is seen.

    depth: (P,) z of the points;  seen: (P,) readings in metres at their pixels

    Median of the ratios, then the mean of those near it: holes, background and things in front do not count.
    """
    usable = usable & torch.isfinite(seen) & (seen > 0)
    ratio = torch.where(usable, seen, 1.0) / depth
    near = usable & ((ratio / masked_quartiles(ratio, usable)[1].clamp(min=1e-9) - 1).abs() < TRIM)
    mean = (ratio * near).sum() / near.sum().clamp(min=1)
    return torch.where(usable.sum() >= FEWEST, mean, torch.nan)


def depth_agreement(alignment: Alignment, depth: DepthMap) -> tuple[float, float]:
    """How far a metric depth map and a metric alignment agree: (ratio, share).

    ratio: median of measured over predicted depth;  share: of the readings that lie as far behind each other as the object's surface
    does, within :data:`TRIM` of that ratio. (1, 1) where too little is seen.
    """
    camera, points = alignment.camera, alignment.cloud_3d
    projected, z = camera.project(points), points[:, 2]
    readings = 1 / depth.inverse_at(camera.to_pixels(projected))
    span = (points.amax(0) - points.amin(0)).amax()
    seen = front_most(projected[None], z[None], tolerance=BEHIND * span)[0] & torch.isfinite(readings)
    if int(seen.sum()) < FEWEST:
        return 1.0, 1.0
    ratio = readings[seen] / z[seen]
    middle = ratio.median()
    return float(middle), float(((ratio / middle - 1).abs() < TRIM).float().mean())
