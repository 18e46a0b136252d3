"""The energy as robust least squares: what Gauss-Newton minimises in place of Eq. 13, derived term by term.

Every term becomes a sum of weighted squared residuals ``r = target - pi(y)`` whose gradient is that of the term; the weights are found
anew in every step (iteratively reweighted least squares). ``d`` is a distance in object scales, ``e = p_sem p_spat`` (Eq. 6).

==========================  ===========================================  ==========================================================
term                        Eq. 13                                       here
==========================  ===========================================  ==========================================================
dense (Eq. 7, 8)            ``-mean_u max_j e``                          the same: a Welsch function with weight ``e / sigma^2`` of
                                                                         the maximising point; sigma falls from step to step
sparse (Eq. 9)              ``-mean_k max_cell e``                       the same, with sigma at least ``SPARSE_SIGMA``
geometry (Eq. 10)           minus mean log-likelihood of shape features  a Gaussian on the mode coefficients, ``PRIOR sum a^2 / v``:
                                                                         the modes hold what Eq. 10 says to second order
background (Eq. 11)         ``mean_j min(d, 0.3)`` of the dense points   ``log(1 + (d / KNEE)^2)``, smooth at the mask's edge, and
                                                                         besides it a term of the keypoints alone: a wing tip beside
                                                                         the mask costs little among all dense points, and is as
                                                                         wrong as can be. Its cost is bounded for all keypoints
                                                                         together, for a mask that lacks a part leaves many outside
depth (Eq. 12)              ``(mean z - 1)^2``                           none: the depth of the origin is 1
==========================  ===========================================  ==========================================================

A step consists of operations on small tensors, whose time is that of the calls: everything that does not depend on the projections is
computed for all steps at once.
"""

import torch
from torch import Tensor

from semalign3d_core.alignment.config import EnergyConfig
from semalign3d_core.alignment.energy import DistanceField
from semalign3d_core.alignment.gauss_newton.poses import DeformableCloud
from semalign3d_core.alignment.observation import Observation

SPARSE_SIGMA = 0.1  # least sigma of the sparse term, object scales
PRIOR = 0.025  # of the weight of Eq. 10
KNEE = 0.1  # object scales; beyond it a point outside the mask is pulled less and less
BACKGROUND_SCALE = 0.05  # object scales: standard deviation of the background's residuals
BACKGROUND = 1 / 6  # of the weight of Eq. 11, for dense points
KEYPOINT_BACKGROUND = 8 / 3  # of it, for keypoints ...
KEYPOINT_LIMIT = 0.03  # ... up to about this mean cost


class RobustResiduals:
    """Weighted residuals of the points of a :class:`DeformableCloud` in one image, in S steps.

    sigmas: (S,) spreads of the dense term, in object scales; stride: every ``stride``-th sampled pixel is used. Positions are relative to
    the principal point.
    """

    def __init__(self, observation: Observation, cloud: DeformableCloud, weights: EnergyConfig, sigmas: Tensor, stride: int = 1):
        self.weights, self.dense, self.scale = weights, cloud.dense, observation.object_scale
        sigmas = sigmas * self.scale
        self._prepare_dense(observation, cloud, sigmas, stride)
        self._prepare_sparse(observation, torch.clamp(sigmas, min=SPARSE_SIGMA * self.scale))
        self.table: Tensor | None = None
        self.means: list[list[Tensor]] = []
        if observation.field is not None and weights.background > 0:
            self.side, self.spacing = len(observation.field.distance), observation.field.spacing
            self.corner = (observation.principal - observation.field.origin)[:, None] / self.spacing + 0.5  # truncation then rounds
            self.table = self._background_table(observation.field)

    def _prepare_dense(self, observation: Observation, cloud: DeformableCloud, sigmas: Tensor, stride: int) -> None:
        seen = observation.pixels[::stride] - observation.principal
        self.pixels = torch.nn.functional.pad(seen, (0, 1), value=1.0)  # (U, 3): u, v, 1
        self.pixel_log = observation.pixel_log[::stride]
        if cloud.dense < self.pixel_log.shape[1]:
            self.pixel_log = self.pixel_log.index_select(1, cloud.dense_index)
        inverse = sigmas[:, None] ** -2
        self.scaled_pixels = (_scaling(inverse)[:, None] * self.pixels).unbind(0)  # S of (U, 3)
        self.pixel_offset = (inverse * (seen * seen).sum(1) * -0.5).unbind(0)
        strength = inverse[..., None] * (self.weights.dense / len(seen))
        self.pixel_strength = (strength * self.pixels.T).unbind(0)

    def _prepare_sparse(self, observation: Observation, sigmas: Tensor) -> None:
        cells = observation.keypoint_cells - observation.principal
        self.cells = cells.reshape(-1, 2)
        self.first_cell = torch.arange(len(cells), device=cells.device) * cells.shape[1]
        inverse = sigmas[:, None] ** -2
        # Per step, 2 of (K, T): what x and y are multiplied by; and what the squared norm is.
        self.scaled_cells = [columns.unbind(0) for columns in inverse[..., None, None] * cells.permute(2, 0, 1)]
        self.norm_scale = (-0.5 * inverse[:, 0]).unbind(0)
        self.cell_offset = torch.addcmul(observation.keypoint_log, inverse[..., None], (cells * cells).sum(-1), value=-0.5).unbind(0)
        self.cell_strength = (inverse * (self.weights.sparse / len(cells))).unbind(0)

    def __call__(self, places: Tensor, step: int) -> Tensor:
        """Weighted residuals (2) and weights (1) of every point by all terms in the given step: (B, 3, J) for places (B, 2, J)."""
        extended = torch.cat([places, (places * places).sum(1, keepdim=True)], 1)  # x, y and the squared norm
        cloud, keypoints = extended.split((self.dense, places.shape[2] - self.dense), 2)
        residuals, means = self._dense(cloud, step)
        keypoint_residuals, keypoint_means = self._sparse(keypoints, step)
        residuals = torch.cat([residuals, keypoint_residuals], 2)
        if self.table is not None:
            outside, costs = self._background(places, self.table)
            residuals, means = residuals.add_(outside), [*means, *costs]
        self.means.append([*means, *keypoint_means])
        return residuals

    def energies(self) -> Tensor:
        """(S, B) sum of the terms before every step so far."""
        dense, *background, sparse = (torch.stack(values).mean(-1) for values in zip(*self.means, strict=True))
        return sum(background, -self.weights.dense * dense - self.weights.sparse * sparse)

    def _dense(self, places: Tensor, step: int) -> tuple[Tensor, list[Tensor]]:
        """Eq. 7, 8 for places with norms (B, 3, P): residuals and weights (B, 3, P), likelihoods [(B, U)].

        The maximum is found without an index: rows are compared with their maximum, and a matrix product with the result (0 or 1)
        collects what every point attracts.
        """
        batch = len(places)
        start, pixels = self.pixel_log.expand(batch, -1, -1), self.scaled_pixels[step].expand(batch, -1, -1)
        log = torch.baddbmm(start, pixels, places)  # (B, U, P)
        best = log.amax(-1, keepdim=True)
        likelihood = (best.squeeze(-1) + self.pixel_offset[step]).exp_()
        residuals = torch.bmm(likelihood[:, None] * self.pixel_strength[step], log.ge_(best))  # sums of strength times u, v, 1
        moments, weight = residuals.split((2, 1), 1)
        moments.addcmul_(places[:, :2], weight, value=-1)
        return residuals, [likelihood]

    def _sparse(self, places: Tensor, step: int) -> tuple[Tensor, list[Tensor]]:
        """Eq. 9 for places with norms (B, 3, K): residuals and weights (B, 3, K), likelihoods [(B, K)]."""
        x, y, norm = places.unbind(1)
        columns, rows = self.scaled_cells[step]
        log = torch.addcmul(self.cell_offset[step], x[..., None], columns)
        best, index = log.addcmul_(y[..., None], rows).max(-1)  # of (B, K, T)
        target = self.cells.index_select(0, (index + self.first_cell).view(-1)).view(*index.shape, 2).transpose(1, 2)
        likelihood = torch.addcmul(best, norm, self.norm_scale[step]).exp_()
        strength = (likelihood * self.cell_strength[step])[:, None]
        return torch.cat([(target - places[:, :2]).mul_(strength), strength], 1), [likelihood]

    def _background_table(self, field: DistanceField) -> Tensor:
        """(4, H * H): residuals (2), weight and energy of Eq. 11 in its robust form, on the nodes of the field."""
        relative2 = (field.distance / (KNEE * self.scale)).square_().view(1, -1)
        strength = (relative2 > 0) / ((BACKGROUND_SCALE * self.scale) ** 2 * (1 + relative2))
        energy = 0.5 * (KNEE / BACKGROUND_SCALE) ** 2 * torch.log1p(relative2)
        return torch.cat([field.offset.view(-1, 2).T * strength, strength, energy])

    def _background(self, places: Tensor, table: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What the mask does to points at places (B, 2, J).

        Returns residuals and weights (B, 3, J) from the table at the nearest nodes, and energies [(B, P), (B, 1)]: of dense points, to be
        averaged, and of keypoints, ``c (1 - exp(-mean / c))`` with the limit c.
        """
        column, row = torch.add(self.corner, places, alpha=1 / self.spacing).clamp_(0, self.side - 1).int().unbind(1)
        index = torch.add(column, row, alpha=self.side)
        found = table.index_select(1, index.view(-1)).view(4, *index.shape)
        cloud, keypoints = found.split((self.dense, places.shape[2] - self.dense), 2)
        weight, keypoint_weight = BACKGROUND * self.weights.background, KEYPOINT_BACKGROUND * self.weights.background
        slope = (keypoints[3].mean(-1, keepdim=True) / -KEYPOINT_LIMIT).exp_()  # of the bounded energy by the mean
        cloud[:3].mul_(weight / self.dense)
        keypoints[:3].mul_(slope * (keypoint_weight / keypoints.shape[2]))
        return found[:3].transpose(0, 1), [cloud[3] * weight, (1 - slope) * (keypoint_weight * KEYPOINT_LIMIT)]


def _scaling(inverse: Tensor) -> Tensor:
    """(S, 3) factors that make of (u, v, 1) what a squared distance to (x, y, |y|^2) needs of it: 1 / sigma^2 times (1, 1, -1/2)."""
    return torch.cat([inverse, inverse, inverse * -0.5], 1)
