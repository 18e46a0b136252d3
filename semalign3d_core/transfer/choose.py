"""Which of the solutions that the alignments of two images kept a transfer between them believes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Reading:
    """What one solution of the source takes Q queries for.

    index: (Q,) j*;  misfit: (Q,) squared distance between query and projection of j*, in MISFIT object sizes, bounded
    penalty: of the solution, see :class:`~semalign3d_core.transfer.aligned_image.AlignedImage`
    lift: without arguments, the :class:`CategoryPoints` by this solution; expensive: computed only for the chosen one
    """

    index: torch.Tensor
    misfit: torch.Tensor
    penalty: float
    lift: Callable


def best_solutions(lifted, image, config):
    """Which solutions of source and target the queries speak for: (:class:`CategoryPoints`, :class:`AlignedImage`) of one each.

    What is left and right, or front and back, one image alone often tells only barely; a wrong answer then looks wrong in the pair: the
    queries do not look like the places they are carried to. Chosen is the pair of solutions with the smallest sum of both penalties and of
    ``solution_misfit`` times the mean misfit of the queries, minus ``solution_similarity`` times the mean similarity of the queries' own
    features to those at the projections of their points in the target.
    """
    sources, targets = lifted.readings, image.solutions
    if not config.solution_similarity or len(sources) * len(targets) <= 1 or not len(lifted.index):
        return lifted, image
    places = torch.stack([target.places for target in targets])[:, torch.stack([source.index for source in sources])]  # (B, A, Q, 2)
    # Of maps, for reading whole features at all these places costs several times as much.
    grid, pixels = image.features.grid, image.alignment.camera.to_pixels(places)
    maps = image.features.similarity(lifted.features).unflatten(1, (grid.cells, grid.cells))
    similarity = grid.sample(maps, pixels).diagonal(dim1=-2, dim2=-1).mean(-1)
    here = similarity.new_tensor([source.penalty for source in sources])
    here = here + config.solution_misfit * torch.stack([source.misfit.mean() for source in sources])
    cost = similarity.new_tensor([[target.penalty] for target in targets]) + here - config.solution_similarity * similarity
    target, source = divmod(int(cost.argmin()), len(sources))
    return sources[source].lift() if source else lifted, targets[target]
