"""Step 2 of Eq. 14: where a point of the category is found in an image."""

import torch
from torch import Tensor

from semalign3d_core.alignment.energy import log_semantic
from semalign3d_core.transfer.aligned_image import AlignedImage, CategorySurface
from semalign3d_core.transfer.config import Transfer

LATTICE = 21  # samples per side of the window that is looked at ...
LATTICE_REACH = 5.0  # ... which reaches this many sigma to each side


class Score:
    """log p_sem(q, j*) + log p_spat(q, y_j*) + own_feature <F_source(p), F(q)> of Q points as a function of the place q in an image.

    index: (Q,) j*; own_features: (Q, C) of the queries, or None; centres: (Q, 2) where y_j* is taken to be, None: its projection.
    """

    def __init__(
        self,
        surface: CategorySurface,
        image: AlignedImage,
        index: Tensor,
        config: Transfer,
        own_features: Tensor | None = None,
        centres: Tensor | None = None,
    ):
        self.grid, self.camera, self.config = image.features.grid, image.alignment.camera, config
        queries = [surface.features[index]]
        if own_features is not None and config.own_feature:
            queries.append(own_features)
        maps = image.features.similarity(torch.cat(queries)).unflatten(0, (len(queries), -1)).transpose(0, 1)
        self.maps = maps.unflatten(2, (self.grid.cells, self.grid.cells))  # (Q, 1 or 2, cells, cells)
        self.mu, self.sd = surface.mu[index, None], surface.sd[index, None]
        self.centres, self.sigma = image.places[index] if centres is None else centres, config.spreads(image)[1]

    def __call__(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """(log p_sem p_spat, whole score) at ``places`` (Q, N, 2), both (Q, N); read between the cells, so finer than the feature grid."""
        cells = self.grid.pixel_to_cell(self.camera.to_pixels(places))
        normalised = cells * (2 / max(self.grid.cells - 1, 1)) - 1
        sampled = torch.nn.functional.grid_sample(self.maps, normalised[:, :, None], padding_mode="border", align_corners=True)[..., 0]
        spatial = -(places - self.centres[:, None]).square().sum(-1) / (2 * self.sigma**2)
        likelihood = log_semantic(sampled[:, 0], self.mu, self.sd) + spatial
        return likelihood, likelihood + self.config.own_feature * sampled[:, 1:].sum(1)

    def best(self) -> Tensor:
        """(Q, 2) the place with the best score, or its mean, as the configuration says."""
        return self.mean() if self.config.second_step == "mean" else self.argmax()

    def mean(self) -> Tensor:
        """Softmax-weighted mean over a window around the projected point, (Q, 2)."""
        places = self.centres[:, None] + _lattice(LATTICE_REACH * self.sigma, self.centres)
        weight = self(places)[1].softmax(1)
        return (weight[..., None] * places).sum(1)

    def argmax(self) -> Tensor:
        """Best cell of the whole image, then the best place around it between the cells, (Q, 2)."""
        cells = self.camera.to_normalised(self.grid.cell_centres().to(self.centres))
        best = cells[self.of_cells()[1].argmax(1)]
        places = best[:, None] + _lattice(self.grid.cell_size / self.camera.longer_side, self.centres)
        return places[torch.arange(len(places), device=places.device), self(places)[1].argmax(1)]

    def of_cells(self) -> tuple[Tensor, Tensor]:
        """Both scores at all cells, (Q, cells * cells) each, row-major."""
        cells = self.camera.to_normalised(self.grid.cell_centres().to(self.centres))
        return self(cells.expand(len(self.centres), -1, -1))


def _lattice(reach: float, like: Tensor) -> Tensor:
    """(LATTICE^2, 2) offsets from -reach to reach; the middle one comes first so that ties stay in place."""
    line = torch.linspace(-1, 1, LATTICE, dtype=like.dtype, device=like.device)
    offsets = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).reshape(-1, 2)
    return reach * offsets[offsets.square().sum(1).argsort(stable=True)]
