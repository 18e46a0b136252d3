"""Which of the solutions of two aligned images a transfer between them uses."""

import torch

from semalign3d_core.transfer.aligned_image import AlignedImage
from semalign3d_core.transfer.config import Transfer
from semalign3d_core.transfer.lift import CategoryPoints

MISFIT_WEIGHT = 0.0075  # of the squared distance between queries and the points that they are taken for


def best_solutions(lifted: CategoryPoints, image: AlignedImage, config: Transfer) -> tuple[CategoryPoints, AlignedImage]:
    """The solution of the source and that of the target that suit the queries best.

    One image alone often hardly tells left from right or front from back. A wrong answer shows in the pair: the queries then do not look
    like the places they are carried to. Chosen is the pair of solutions with the least cost: both penalties, plus ``MISFIT_WEIGHT`` times
    the mean misfit of the queries, minus ``solution_similarity`` times the mean similarity of the queries' own features to those at the
    projections of their points in the target.
    """
    sources, targets = lifted.readings, image.solutions
    if not config.solution_similarity or len(sources) * len(targets) <= 1 or not len(lifted.index):
        return lifted, image
    places = torch.stack([target.places for target in targets])[:, torch.stack([source.index for source in sources])]  # (B, A, Q, 2)
    # Similarity maps are sampled: to sample whole features at all these places takes several times as long.
    grid, pixels = image.features.grid, image.alignment.camera.to_pixels(places)
    maps = image.features.similarity(lifted.features).unflatten(1, (grid.cells, grid.cells))
    similarity = grid.sample(maps, pixels).diagonal(dim1=-2, dim2=-1).mean(-1)
    here = similarity.new_tensor([source.penalty for source in sources])
    here = here + MISFIT_WEIGHT * torch.stack([source.misfit.mean() for source in sources])
    cost = similarity.new_tensor([[target.penalty] for target in targets]) + here - config.solution_similarity * similarity
    target, source = divmod(int(cost.argmin()), len(sources))
    return sources[source].lift() if source else lifted, targets[target]
