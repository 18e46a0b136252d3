"""Nearest neighbour: every point goes to the cell of the target whose feature is most similar."""

import torch

from semalign3d_core.matchers import Matches


class NearestNeighbour:
    """The baseline of every table: arg-max of the cosine similarity, at cell centres."""

    name = "nearest_neighbour"

    def match(self, source, target, points):
        """Matches ``points`` (Q, 2) pixels of ``source`` in ``target``; confidence is the similarity, clamped to [0, 1]."""
        similarity = self.similarity(source, target, points)
        grid = target.features.grid
        best, index = similarity.flatten(1).max(1)
        cells = torch.stack([index % grid.cells, index // grid.cells], -1).float()
        return Matches(grid.cell_to_pixel(cells), best.clamp(0, 1))

    def similarity(self, source, target, points):
        """(Q, cells, cells): cosine similarity of the source cell under each point with all cells of the target."""
        return similarity_maps(source.features, target.features, points)


def similarity_maps(source, target, points):
    """Cosine similarity (Q, cells, cells) between the cells of ``source`` that hold ``points`` and the cells of ``target``.

    source, target: :class:`~semalign3d_core.evidence.FeatureMap`; points: (Q, 2) pixels of the source, clamped to its grid.
    The cell that holds a point is used as it is, without interpolation, as in the published baselines.
    """
    cells = source.grid.pixel_to_cell(points.to(source.values)).round().long().clamp(0, source.grid.cells - 1)
    queries = source.values[:, cells[:, 1], cells[:, 0]].T
    return (queries @ target.values.flatten(1)).unflatten(1, target.values.shape[1:])
