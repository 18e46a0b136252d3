"""Step 1 of Eq. 14: which points of the category the pixels of a source image show.

Q query points; image positions are in units of L unless they are called pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semalign3d_core.alignment.energy import log_semantic
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.values import ShortRepr
from semalign3d_core.transfer.aligned_image import AlignedImage, CategorySurface
from semalign3d_core.transfer.config import Transfer
from semalign3d_core.transfer.second_step import Score

LONGEST_RESIDUAL = 3.0  # sigma; beyond that the query does not belong to the point that was found
TEMPERATURE = 8.0  # of the likelihoods in the confidence: single cells are noisy, only their ranking is informative
IMPOSSIBLE = -1e6  # score of what cannot be assigned
MISFIT, LARGEST_MISFIT = 0.08, 3.0  # object sizes by which a query may lie beside its point, and how many of them count at most


@dataclass(frozen=True, repr=False)
class CategoryPoints(ShortRepr):
    """Pixels of a source image, lifted to the category.

    index:      (Q,) j*, the point of the category's surface
    features:   (Q, C) the queries' own features, unit norm
    confidence: (Q,) alignment's confidence times the tempered likelihood p_sem p_spat of j* in the source; 1 where j* was given
    residual:   (Q, 2, 2) what is carried of the query minus the projection of j*, and minus what step 2 finds for it, in the source itself
    around:     (Q, N, 2) places of the neighbours of j* in the source, relative to j*;  size: float, of the object there
    readings:   what each solution of the source takes the queries for; that of this one comes first
    """

    index: Tensor
    features: Tensor
    confidence: Tensor
    residual: Tensor
    around: Tensor
    size: float
    readings: "tuple[Reading, ...]" = ()

    def rows(self, chosen: Tensor) -> "CategoryPoints":
        """The points ``chosen`` (N,) int64 of these, without readings."""
        changed: dict[str, Any] = {name: value[chosen] for name, value in self._tensors().items()}
        return replace(self, readings=(), **changed)

    def with_more(self, points: "CategoryPoints") -> "CategoryPoints":
        """These points, then further ones of the same image and solution."""
        more = points._tensors()
        changed: dict[str, Any] = {name: torch.cat([value, more[name]]) for name, value in self._tensors().items()}
        return replace(self, **changed)

    def _tensors(self) -> dict[str, Tensor]:
        return {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}


@dataclass(frozen=True)
class Reading:
    """What one solution of the source takes Q queries for.

    index: (Q,) j*;  misfit: (Q,) squared distance between query and projection of j*, in MISFIT object sizes, bounded
    penalty: of the solution, see :class:`AlignedImage`
    lift: without arguments, the :class:`CategoryPoints` by this solution; expensive: computed only for the chosen one
    """

    index: Tensor
    misfit: Tensor
    penalty: float
    lift: Callable[[], CategoryPoints]


class Lifting:
    """Step 1 of Eq. 14 for all points of a source: ``j* = argmax_j p_sem(p, j) p_spat(p, y_j)``.

    points: (Q, 2) pixels; known: (Q,) int64, which keypoint a query is if whoever marked it said so, else -1. Such a query needs no
    search, and how well the source was aligned does not matter to it.

    A group of the points, for example those of one pair, is lifted as if the others were not there, although queries of one group compete
    for keypoints (``config.distinct``).
    """

    def __init__(
        self,
        surface: CategorySurface,
        image: AlignedImage,
        points: Tensor | np.ndarray,
        config: Transfer,
        known: Tensor | list[int] | None = None,
    ):
        points = torch.as_tensor(points, dtype=torch.float32, device=image.places.device).reshape(-1, 2)
        if not torch.isfinite(points).all():
            raise InputError("the points to transfer contain NaN or infinity")
        nothing = torch.full((len(points),), -1, device=points.device)
        known = nothing if known is None else torch.as_tensor(known).to(nothing)
        features = image.features.sample(points)
        queries = _Queries(image.alignment.camera.to_normalised(points), features, features @ surface.features.T, known)
        solutions = image.solutions if config.solution_similarity else (image,)
        self._solutions = [_SolutionLifting(surface, solution, queries, config) for solution in solutions]

    @property
    def together(self) -> CategoryPoints:
        """The :class:`CategoryPoints` of all points as one group."""
        places = self._solutions[0].queries.places
        return self.rows(torch.arange(len(places), device=places.device))

    def rows(self, chosen: Tensor) -> CategoryPoints:
        """The :class:`CategoryPoints` of the points ``chosen`` (N,) int64 as one group."""
        readings = tuple(lifting.reading(chosen) for lifting in self._solutions)
        return replace(readings[0].lift(), readings=readings)


@dataclass(frozen=True)
class _Queries:
    """What is the same of Q queries for all solutions of their image.

    Places (Q, 2), features (Q, C), their similarity (Q, J) to the points of the surface, and which keypoint each is known to be, (Q,) or
    -1.
    """

    places: Tensor
    features: Tensor
    similarity: Tensor
    known: Tensor


class _SolutionLifting:
    """A :class:`Lifting` by one solution of the source."""

    def __init__(self, surface: CategorySurface, image: AlignedImage, queries: _Queries, config: Transfer):
        self.surface, self.image, self.queries, self.config = surface, image, queries, config
        semantic = log_semantic(queries.similarity, surface.mu, surface.sd)
        spatial = -(queries.places[:, None] - image.places).square().sum(-1) / (2 * config.spreads(image)[0] ** 2)  # log of Eq. 5
        alike = config.semantic_weight * semantic + config.similarity_weight * queries.similarity
        score = alike + spatial - config.hidden_penalty * image.hidden
        self.score = score.masked_fill(~image.usable, -torch.inf)
        self.likelihood = semantic + spatial
        self.lifted: CategoryPoints | None = None
        self.where: dict[tuple[int, int], int] = {}

    def reading(self, chosen: Tensor) -> Reading:
        """The :class:`Reading` of the points ``chosen`` (N,) int64 by this solution."""
        index = self._index(chosen)
        beside = (self.queries.places[chosen] - self.image.places[index]) / (MISFIT * self.image.size)
        misfit = beside.square().sum(1).clamp(max=LARGEST_MISFIT**2)
        return Reading(index, misfit, self.image.penalty, partial(self._rows, chosen, index))

    def _rows(self, chosen: Tensor, index: Tensor) -> CategoryPoints:
        """The :class:`CategoryPoints` of points (N,) with j* ``index`` (N,)."""
        # A point may be another keypoint in another group. What was lifted once is kept, because many pairs ask for it.
        keys = list(zip(chosen.tolist(), index.tolist(), strict=True))
        new = [key for key in dict.fromkeys(keys) if key not in self.where]
        if new or self.lifted is None:
            lifted = self._lifted(*torch.tensor(new, dtype=torch.long, device=self.score.device).reshape(-1, 2).T)
            self.where |= {key: len(self.where) + row for row, key in enumerate(new)}
            self.lifted = lifted if self.lifted is None else self.lifted.with_more(lifted)
        return self.lifted.rows(torch.tensor([self.where[key] for key in keys], dtype=torch.long, device=self.score.device))

    def _index(self, rows: Tensor) -> Tensor:
        """(N,) j* of the points ``rows`` as one group."""
        score, known, preference = self.score[rows], self.queries.known[rows], self.config.keypoint_preference
        if self.config.distinct:
            index = distinct_keypoints(score, self.surface.is_keypoint, preference)
        else:
            index = (score + preference * self.surface.is_keypoint).argmax(1)
        return torch.where(known >= 0, self.surface.keypoints()[known.clamp(min=0)], index)

    def _lifted(self, rows: Tensor, index: Tensor) -> CategoryPoints:
        """The :class:`CategoryPoints` of the points ``rows`` (N,) with j* ``index`` (N,)."""
        surface, image, config = self.surface, self.image, self.config
        places, named, target_sigma = self.queries.places[rows], self.queries.known[rows] >= 0, config.spreads(image)[1]
        centres = torch.where(named[:, None], places, image.places[index])
        found = Score(surface, image, index, config, centres=centres).best() if config.residual and config.projection < 1 else places
        residual = torch.stack([config.projection_residual * (places - centres), config.residual * (places - found)], 1)
        length = residual.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        return CategoryPoints(
            index=index,
            features=self.queries.features[rows],
            confidence=torch.where(named, 1.0, image.alignment.confidence * tempered(self.likelihood[rows, index])),
            residual=residual * (LONGEST_RESIDUAL * target_sigma / length).clamp(max=1),
            around=image.places[surface.neighbours[index]] - image.places[index][:, None],
            size=image.size,
        )


def tempered(log_likelihood: Tensor) -> Tensor:
    """A likelihood as a part of a confidence."""
    return (log_likelihood / TEMPERATURE).clamp(max=0).exp()


def distinct_keypoints(score: Tensor, is_keypoint: Tensor, preference: float) -> Tensor:
    """(Q,) points of the surface for queries that are different keypoints: the assignment with the largest sum of scores.

    score: (Q, J); is_keypoint: (J,); preference: nats by which a keypoint is preferred to the best other point, which every query may have
    instead.
    """
    from scipy.optimize import linear_sum_assignment  # takes memory that nodes without demonstrations do without

    keypoints = is_keypoint.nonzero()[:, 0]
    other, index = score.masked_fill(is_keypoint, -torch.inf).max(1)
    table = torch.cat([score[:, keypoints] + preference, torch.full((len(score), len(score)), -torch.inf).to(score)], 1)
    table[:, len(keypoints) :].fill_diagonal_(0.0).add_(other[:, None])
    queries, chosen = linear_sum_assignment(table.clamp(min=IMPOSSIBLE).cpu().double().numpy(), maximize=True)
    chosen = torch.as_tensor(chosen, device=score.device)[torch.as_tensor(queries.argsort(), device=score.device)]
    return torch.where(chosen < len(keypoints), keypoints[chosen.clamp(max=len(keypoints) - 1)], index)
