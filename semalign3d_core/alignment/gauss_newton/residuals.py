"""What the terms of the energy pull projected points to: the weights and residuals of iteratively reweighted least squares.

With ``e_u = p_sem p_spat`` of the maximising point, the dense term ``-mean e_u`` (Eq. 7, 8) is a Welsch-robust least-squares problem:
weight ``e_u / sigma^2``, residual ``u - pi(y_j(u))``. The sparse term (Eq. 9) is the same for keypoints and their best cells; the
background (Eq. 11) pulls points outside the mask to it. Keypoints have a weight of their own there: a wing tip beside the mask costs
little among all dense points, and is as wrong as can be. What they cost is bounded for all of them together, for a mask that lacks a part
of the object leaves many outside.

A step consists of small tensors, so it costs what its calls cost: everything that does not depend on the projections is computed
for all steps at once.
"""

import torch

BACKGROUND_KNEE = 0.1  # units; beyond it a point outside the mask is pulled less and less


class Pulls:
    """The pulls of one image on the points of a :class:`DeformableCloud` in S steps; ``config`` is a :class:`GaussNewtonConfig`.

    sigmas: (S,) spreads of the dense term, in units; stride: every which sampled pixel is used. Positions are relative to the principal
    point.
    """

    def __init__(self, observation, cloud, config, sigmas, stride=1):
        self.config, self.dense, self.unit = config, cloud.dense, observation.unit
        sigmas = sigmas * self.unit
        self._prepare_dense(observation, cloud, sigmas, stride)
        self._prepare_sparse(observation, torch.clamp(sigmas, min=config.keypoint_sigma * self.unit))
        self.table, self.means = None, []
        if observation.field is not None and max(config.background, config.keypoint_background) > 0:
            self.side, self.spacing = len(observation.field.distance), observation.field.spacing
            self.corner = (observation.principal - observation.field.origin)[:, None] / self.spacing + 0.5  # truncation then rounds
            self.table = self._background_table(observation.field)

    def _prepare_dense(self, observation, cloud, sigmas, stride):
        seen = observation.pixels[::stride] - observation.principal
        self.pixels = torch.nn.functional.pad(seen, (0, 1), value=1.0)  # (U, 3): u, v, 1
        self.pixel_log = observation.pixel_log[::stride]
        if cloud.dense < self.pixel_log.shape[1]:
            self.pixel_log = self.pixel_log.index_select(1, cloud.dense_index)
        inverse = sigmas[:, None] ** -2
        self.scaled_pixels = (_scaling(inverse)[:, None] * self.pixels).unbind(0)  # S of (U, 3)
        self.pixel_offset = (inverse * (seen * seen).sum(1) * -0.5).unbind(0)
        strength = inverse[..., None] * (self.config.dense / len(seen))
        self.pixel_strength = (strength * self.pixels.T).unbind(0)

    def _prepare_sparse(self, observation, sigmas):
        cells = observation.keypoint_cells - observation.principal
        self.cells = cells.reshape(-1, 2)
        self.first_cell = torch.arange(len(cells), device=cells.device) * cells.shape[1]
        inverse = sigmas[:, None] ** -2
        # Per step, 2 of (K, T): what x and y are multiplied by; and what the squared norm is.
        self.scaled_cells = [columns.unbind(0) for columns in inverse[..., None, None] * cells.permute(2, 0, 1)]
        self.norm_scale = (-0.5 * inverse[:, 0]).unbind(0)
        self.cell_offset = torch.addcmul(observation.keypoint_log, inverse[..., None], (cells * cells).sum(-1), value=-0.5).unbind(0)
        self.cell_strength = (inverse * (self.config.sparse / len(cells))).unbind(0)

    def __call__(self, places, step):
        """Weighted residuals and weights of every point by all terms in the given step: (B, 3, J) for places (B, 2, J)."""
        extended = torch.cat([places, (places * places).sum(1, keepdim=True)], 1)  # x, y and the squared norm
        cloud, keypoints = extended.split((self.dense, places.shape[2] - self.dense), 2)
        pulls, means = self._dense(cloud, step)
        keypoint_pulls, keypoint_means = self._sparse(keypoints, step)
        pulls = torch.cat([pulls, keypoint_pulls], 2)
        if self.table is not None:
            outside, costs = self._background(places)
            pulls, means = pulls.add_(outside), [*means, *costs]
        self.means.append([*means, *keypoint_means])
        return pulls

    def energies(self):
        """(S, B) sum of the terms before every step so far."""
        dense, *background, sparse = (torch.stack(values).mean(-1) for values in zip(*self.means, strict=True))
        return sum(background, -self.config.dense * dense - self.config.sparse * sparse)

    def _dense(self, places, step):
        """Eq. 7, 8 for places with norms (B, 3, P): pulls (B, 3, P), likelihoods [(B, U)].

        The maximum is found without an index: rows are compared with their maximum, and a matrix product with the outcome (0 or 1)
        collects what every point attracts.
        """
        batch = len(places)
        start, pixels = self.pixel_log.expand(batch, -1, -1), self.scaled_pixels[step].expand(batch, -1, -1)
        log = torch.baddbmm(start, pixels, places)  # (B, U, P)
        best = log.amax(-1, keepdim=True)
        likelihood = (best.squeeze(-1) + self.pixel_offset[step]).exp_()
        pulls = torch.bmm(likelihood[:, None] * self.pixel_strength[step], log.ge_(best))  # sums of strength times u, v, 1
        moments, weight = pulls.split((2, 1), 1)
        moments.addcmul_(places[:, :2], weight, value=-1)
        return pulls, [likelihood]

    def _sparse(self, places, step):
        """Eq. 9 for places with norms (B, 3, K): pulls (B, 3, K), likelihoods [(B, K)]."""
        x, y, norm = places.unbind(1)
        columns, rows = self.scaled_cells[step]
        log = torch.addcmul(self.cell_offset[step], x[..., None], columns)
        best, index = log.addcmul_(y[..., None], rows).max(-1)  # of (B, K, T)
        target = self.cells.index_select(0, (index + self.first_cell).view(-1)).view(*index.shape, 2).transpose(1, 2)
        likelihood = torch.addcmul(best, norm, self.norm_scale[step]).exp_()
        strength = (likelihood * self.cell_strength[step])[:, None]
        return torch.cat([(target - places[:, :2]).mul_(strength), strength], 1), [likelihood]

    def _background_table(self, field):
        """(4, H * H): pull (2), weight and energy of Eq. 11 in its robust form ``log(1 + (d / knee)^2)``, on the nodes of the field."""
        scale = self.config.background_scale
        relative2 = (field.distance / (BACKGROUND_KNEE * self.unit)).square_().view(1, -1)
        strength = (relative2 > 0) / ((scale * self.unit) ** 2 * (1 + relative2))
        energy = 0.5 * (BACKGROUND_KNEE / scale) ** 2 * torch.log1p(relative2)
        return torch.cat([field.offset.view(-1, 2).T * strength, strength, energy])

    def _background(self, places):
        """Pulls (B, 3, J) at places (B, 2, J) from the table at the nearest nodes, and energies [(B, P), (B, 1)]: of dense points, to be
        averaged, and of keypoints, ``c (1 - exp(-mean / c))`` with the limit c."""
        column, row = torch.add(self.corner, places, alpha=1 / self.spacing).clamp_(0, self.side - 1).int().unbind(1)
        index = torch.add(column, row, alpha=self.side)
        found = self.table.index_select(1, index.view(-1)).view(4, *index.shape)
        cloud, keypoints = found.split((self.dense, places.shape[2] - self.dense), 2)
        weight, limit = self.config.keypoint_background, self.config.keypoint_limit
        trust = (keypoints[3].mean(-1, keepdim=True) / -limit).exp_()  # also the derivative of their energy by their mean
        cloud[:3].mul_(self.config.background / self.dense)
        keypoints[:3].mul_(trust * (weight / keypoints.shape[2]))
        return found[:3].transpose(0, 1), [cloud[3] * self.config.background, (1 - trust) * (weight * limit)]


def _scaling(inverse):
    """(S, 3) factors that make of (u, v, 1) what a squared distance to (x, y, |y|^2) needs of it: 1 / sigma^2 times (1, 1, -1/2)."""
    return torch.cat([inverse, inverse, inverse * -0.5], 1)
