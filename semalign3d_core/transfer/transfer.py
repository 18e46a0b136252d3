"""Transfer of points between images through the category (paper section 3.3, Eq. 14).

``lift_points`` finds what a pixel is on the category, ``place_points`` where that is in another image. Both work on
:class:`AlignedImage`, so that an image is prepared once whatever the number of its pairs, and a demonstration is lifted
once whatever the number of live frames. Q query points; image positions are in units of L unless they are called pixels.
"""

from dataclasses import dataclass, fields, replace
from functools import partial

import torch
from scipy.optimize import linear_sum_assignment

from semalign3d_core.geometry.camera import back_project
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.transfer.aligned_image import aligned_image, category_surface
from semalign3d_core.transfer.choose import Reading, best_solutions
from semalign3d_core.transfer.matches import Matches

SECOND_STEPS = ("mean", "argmax")
LATTICE = 21  # samples per side of the window of the second step ...
LATTICE_REACH = 5.0  # ... which reaches this many sigma to each side
LONGEST_RESIDUAL = 3.0  # sigma; beyond that the query does not belong to the point that was found
TEMPERATURE = 8.0  # of the likelihoods in the confidence: single cells are noisy, their ranking is what they tell
IMPOSSIBLE = -1e6  # score of what cannot be assigned
MISFIT, LARGEST_MISFIT = 0.08, 3.0  # object sizes by which a query may lie beside its point, and how many of them count at most
LOCAL_RIDGE = 0.05  # of the local map between two images, towards the ratio of their object sizes


@dataclass(frozen=True)
class Transfer:
    """Settings of the transfer; the defaults are the preset ``fast``.

    sigma, target_sigma: spread of p_spat in the source (step 1 of Eq. 14) and in the target (step 2)
    size_unit:           both are in units of L at this object size and grow with the object; None: always in units of L
    uncertain_widening:  the spread is multiplied by ``uncertain_widening ** (1 - confidence of the image's alignment)``
    semantic_weight:     factor of log p_sem in step 1;  similarity_weight: of the plain similarity there
    keypoint_preference: nats by which annotated keypoints are preferred in step 1; above 0 only if the queries are keypoints
    distinct:            queries of one call are different keypoints, so that each keypoint is given to one query at most
    hidden_penalty:      nats against points behind the object in step 1 (a query is on what one sees)
    own_feature:         weight of the similarity of the query's own feature in step 2
    second_step:         ``mean`` (softmax-weighted mean) or ``argmax`` (as published)
    projection:          share of the plain projection of j* in the result, the rest is what step 2 finds; where j* is not
                         seen in the target there is nothing to find, and the share is 1
    residual:            share of the source's residual of step 2 that is carried to the target;  projection_residual: of its
                         residual of the projection. 1 and 1 return every query to itself when source and target are the same
                         image, 0 and 0 are Eq. 14 as published; below 1, because residuals also hold the error of the source's alignment
    solution_similarity: weight of how alike queries and their places look in the choice among the solutions that both images' alignments
                         kept (solution_choice.py); 0: always the best of each image;  solution_misfit: weight of the squared
                         distance between queries and the points they are taken for there
    category_sigmas:     ((category, sigma), ...): published spreads that replace both
    """

    sigma: float = 0.02
    target_sigma: float = 0.02
    size_unit: float | None = 0.6
    uncertain_widening: float = 2.0
    semantic_weight: float = 0.5
    similarity_weight: float = 10.0
    keypoint_preference: float = 0.0
    distinct: bool = False
    hidden_penalty: float = 1.0
    own_feature: float = 10.0
    second_step: str = "mean"
    projection: float = 0.5
    residual: float = 0.75
    projection_residual: float = 0.75
    solution_similarity: float = 0.1
    solution_misfit: float = 0.0075
    category_sigmas: tuple = ()

    def __post_init__(self):
        if self.second_step not in SECOND_STEPS:
            raise InputError(f"transfer: second_step is {self.second_step!r}, expected one of {', '.join(SECOND_STEPS)}")
        if min(self.sigma, self.target_sigma, self.uncertain_widening, self.size_unit or 1) <= 0:
            raise InputError("transfer: sigma, target_sigma, size_unit and uncertain_widening must be positive")

    def spreads(self, image):
        """(sigma, target_sigma) in units of L for an :class:`AlignedImage`."""
        published = dict(self.category_sigmas).get(image.alignment.category)
        sigmas = (self.sigma, self.target_sigma) if published is None else (published, published)
        factor = 1.0 if self.size_unit is None else image.size / self.size_unit
        factor *= self.uncertain_widening ** (1 - min(max(float(image.alignment.confidence), 0.0), 1.0))
        return sigmas[0] * factor, sigmas[1] * factor


@dataclass(frozen=True)
class CategoryPoints:
    """Pixels of a source image, lifted to the category.

    index:      (Q,) j*, the point of the category's surface
    features:   (Q, C) the queries' own features, unit norm
    confidence: (Q,) alignment's confidence times the tempered likelihood p_sem p_spat of j* in the source; 1 where j* was given
    residual:   (Q, 2, 2) what is carried of the query minus the projection of j*, and minus what step 2 finds for it, in the source itself
    around:     (Q, N, 2) places of the neighbours of j* in the source, relative to j*;  size: float, of the object there
    readings:   by what each solution of the source they could be read, a :class:`Reading` each; that of this one comes first
    """

    index: torch.Tensor
    features: torch.Tensor
    confidence: torch.Tensor
    residual: torch.Tensor
    around: torch.Tensor
    size: float
    readings: tuple = ()

    def rows(self, chosen):
        """The points ``chosen`` (N,) int64 of these, without readings."""
        return replace(self, readings=(), **{name: value[chosen] for name, value in self._tensors().items()})

    def with_more(self, points):
        """These points, then further ones of the same image and solution."""
        more = points._tensors()
        return replace(self, **{name: torch.cat([value, more[name]]) for name, value in self._tensors().items()})

    def _tensors(self):
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if torch.is_tensor(value)}


def transfer_points(model, source_evidence, source_alignment, target_evidence, target_alignment, points, config=None):
    """Where ``points`` (Q, 2), pixels of the source, are in the target: :class:`Matches`.

    Whoever transfers more than one pair prepares each image once with ``aligned_image`` and calls ``transfer``.
    """
    surface = category_surface(model)
    source = aligned_image(surface, source_evidence, source_alignment)
    target = aligned_image(surface, target_evidence, target_alignment)
    return transfer(surface, source, target, points, config or Transfer())


def transfer(surface, source, target, points, config):
    """Eq. 14 between two :class:`AlignedImage` of one category: (Q, 2) pixels to :class:`Matches`."""
    return place_points(surface, lift_points(surface, source, points, config), target, config)


def cycle_distance(surface, source, target, points, config):
    """Pixels (Q,) by which points return beside themselves after source -> target -> source: small where trustworthy."""
    there = transfer(surface, source, target, points, config)
    back = transfer(surface, target, source, there.points, config)
    return (back.points - torch.as_tensor(points, dtype=torch.float32, device=back.points.device)).norm(dim=-1)


def lift_points(surface, image, points, config, known=None):
    """Step 1 of Eq. 14: ``j* = argmax_j p_sem(p, j) p_spat(p, y_j)`` for pixels (Q, 2); returns :class:`CategoryPoints`.

    known: (Q,) int64, which keypoint a query is if whoever marked it said so, else -1. Such a query needs no search, and how well the
    source was aligned does not matter to it.
    """
    return Lifting(surface, image, points, config, known).together


class Lifting:
    """Step 1 of Eq. 14 for all points of a source, of which groups are then asked for: those of its pairs.

    surface, image, points, config, known: as for :func:`lift_points`. What :meth:`rows` returns for a group is what :func:`lift_points`
    would return for its points alone, although queries of one group compete for keypoints (``config.distinct``).
    """

    def __init__(self, surface, image, points, config, known=None):
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
    def together(self):
        """The :class:`CategoryPoints` of all points as one group."""
        return self.rows(torch.arange(len(self._solutions[0].places), device=self._solutions[0].places.device))

    def rows(self, chosen):
        """The :class:`CategoryPoints` of the points ``chosen`` (N,) int64."""
        readings = tuple(lifting.reading(chosen) for lifting in self._solutions)
        return replace(readings[0].lift(), readings=readings)


@dataclass(frozen=True)
class _Queries:
    """What of Q queries is the same for all solutions of their image: places (Q, 2), features (Q, C), their similarity (Q, J) to the points
    of the surface, and which keypoint each is known to be, (Q,) or -1."""

    places: torch.Tensor
    features: torch.Tensor
    similarity: torch.Tensor
    known: torch.Tensor


class _SolutionLifting:
    """A :class:`Lifting` by one solution of the source."""

    def __init__(self, surface, image, queries, config):
        self.surface, self.image, self.config = surface, image, config
        self.places, self.features, self.known = queries.places, queries.features, queries.known
        semantic = log_semantic(queries.similarity, surface.mu, surface.sd)
        spatial = -(self.places[:, None] - image.places).square().sum(-1) / (2 * config.spreads(image)[0] ** 2)  # log of Eq. 5
        alike = config.semantic_weight * semantic + config.similarity_weight * queries.similarity
        score = alike + spatial - config.hidden_penalty * image.hidden
        self.score = score.masked_fill(~image.usable, -torch.inf)
        self.likelihood = semantic + spatial
        self.lifted, self.where = None, {}

    def reading(self, chosen):
        """The :class:`Reading` of the points ``chosen`` (N,) int64 by this solution."""
        index = self._index(chosen)
        beside = (self.places[chosen] - self.image.places[index]) / (MISFIT * self.image.size)
        misfit = beside.square().sum(1).clamp(max=LARGEST_MISFIT**2)
        return Reading(index, misfit, self.image.penalty, partial(self._rows, chosen, index))

    def _rows(self, chosen, index):
        """The :class:`CategoryPoints` of points (N,) with j* ``index`` (N,)."""
        # A point may be another keypoint in another group; what was lifted once is kept, for many pairs ask for the same.
        keys = list(zip(chosen.tolist(), index.tolist(), strict=True))
        new = [key for key in dict.fromkeys(keys) if key not in self.where]
        if new or self.lifted is None:
            lifted = self._lifted(*torch.tensor(new, dtype=torch.long, device=self.score.device).reshape(-1, 2).T)
            self.where |= {key: len(self.where) + row for row, key in enumerate(new)}
            self.lifted = lifted if self.lifted is None else self.lifted.with_more(lifted)
        return self.lifted.rows(torch.tensor([self.where[key] for key in keys], dtype=torch.long, device=self.score.device))

    def _index(self, rows):
        """(N,) j* of the points ``rows`` as one group."""
        score, known, preference = self.score[rows], self.known[rows], self.config.keypoint_preference
        if self.config.distinct:
            index = distinct_keypoints(score, self.surface.is_keypoint, preference)
        else:
            index = (score + preference * self.surface.is_keypoint).argmax(1)
        return torch.where(known >= 0, self.surface.keypoints()[known.clamp(min=0)], index)

    def _lifted(self, rows, index):
        """The :class:`CategoryPoints` of the points ``rows`` (N,) with j* ``index`` (N,)."""
        surface, image, config = self.surface, self.image, self.config
        places, named, target_sigma = self.places[rows], self.known[rows] >= 0, config.spreads(image)[1]
        centres = torch.where(named[:, None], places, image.places[index])
        found = _second_step(surface, image, index, None, config, centres)[0] if config.residual and config.projection < 1 else places
        residual = torch.stack([config.projection_residual * (places - centres), config.residual * (places - found)], 1)
        confidence = float(image.alignment.confidence) * _tempered(self.likelihood[rows].gather(1, index[:, None])[:, 0])
        length = residual.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        return CategoryPoints(
            index=index,
            features=self.features[rows],
            confidence=torch.where(named, 1.0, confidence),
            residual=residual * (LONGEST_RESIDUAL * target_sigma / length).clamp(max=1),
            around=image.places[surface.neighbours[index]] - image.places[index][:, None],
            size=image.size,
        )


def distinct_keypoints(score, is_keypoint, preference):
    """(Q,) points of the surface for queries that are different keypoints: the assignment with the largest sum of scores.

    score: (Q, J); is_keypoint: (J,); preference: nats by which a keypoint is preferred to the best other point, which every query may have
    instead.
    """
    keypoints = is_keypoint.nonzero()[:, 0]
    other, index = score.masked_fill(is_keypoint, -torch.inf).max(1)
    table = torch.cat([score[:, keypoints] + preference, torch.full((len(score), len(score)), -torch.inf).to(score)], 1)
    table[:, len(keypoints) :].fill_diagonal_(0.0).add_(other[:, None])
    queries, chosen = linear_sum_assignment(table.clamp(min=IMPOSSIBLE).cpu().double().numpy(), maximize=True)
    chosen = torch.as_tensor(chosen, device=score.device)[torch.as_tensor(queries.argsort(), device=score.device)]
    return torch.where(chosen < len(keypoints), keypoints[chosen.clamp(max=len(keypoints) - 1)], index)


def place_points(surface, lifted, image, config):
    """Step 2 of Eq. 14: where the lifted points are in ``image``; returns :class:`Matches`.

    The score log p_sem(q, j*) + log p_spat(q, y_j*) + own_feature <F_source(p), F(q)> is read between the cells, so the
    result is finer than the feature grid. It shares its systematic error (a corner is drawn into the object, j* stands
    for its surroundings) with the same step in the source, whose known residual is therefore added, mapped locally. Its random
    error is independent of that of the alignment, so a mean with the plain projection is better than either.
    The 3D position is the found pixel at the depth of y_j*. The confidence is the product of both alignments'
    confidences and the tempered likelihoods of the point in the images that show it. Where the images' alignments kept several solutions,
    :func:`best_solutions` says which ones to believe.
    """
    lifted, image = best_solutions(lifted, image, config)
    index, alignment, camera = lifted.index, image.alignment, image.alignment.camera
    found, log_likelihood = _second_step(surface, image, index, lifted.features, config)
    seen = image.usable[index] & ~(image.hidden | image.occluded)[index]
    share = torch.where(seen, config.projection, 1.0 if config.projection else 0.0)[:, None].to(found)
    carried = _mapped_residuals(surface, lifted, image)
    found = torch.lerp(found + carried[:, 1], image.places[index] + carried[:, 0], share)
    points = surface.surface[index] @ image.keypoints
    pixels = camera.to_pixels(found)
    visible = seen & ((pixels > -0.5) & (pixels < pixels.new_tensor([camera.width, camera.height]) - 0.5)).all(-1)
    evidence = torch.where(visible, _tempered(log_likelihood), 1.0)
    return Matches(
        points=pixels,
        confidence=lifted.confidence * float(alignment.confidence) * evidence,
        points_3d=back_project(found, points[:, 2], camera.focal.to(points), camera.principal.to(points)),
        visible=visible,
    )


def likelihood_maps(surface, lifted, image, config):
    """p_sem(q, j*) p_spat(q, y_j*) of step 2 at all cells q of ``image``: (Q, cells * cells) in [0, 1], row-major."""
    lifted, image = best_solutions(lifted, image, config)
    score = _score(surface, image, lifted.index, None, config)
    cells = image.alignment.camera.to_normalised(image.features.grid.cell_centres(image.places.device))
    return score(cells.expand(len(lifted.index), -1, -1))[0].exp()


def log_semantic(similarity, mu, sd):
    """log p_sem (Eq. 4), one-sided: 0 where the similarity is at least ``mu``."""
    return -((mu - similarity).clamp(min=0) / sd).square() / 2


def _tempered(log_likelihood):
    return (log_likelihood / TEMPERATURE).exp()


def _second_step(surface, image, index, own_features, config, centres=None):
    """Places (Q, 2) of the surface points ``index`` in ``image`` and log p_sem p_spat there (Q,).

    centres: (Q, 2) where y_j* is taken to be instead of its projection.
    """
    score = _score(surface, image, index, own_features, config, centres)
    found = score.mean() if config.second_step == "mean" else score.argmax()
    return found, score(found[:, None])[0][:, 0]


def _score(surface, image, index, own_features, config, centres=None):
    _, sigma = config.spreads(image)
    queries = [surface.features[index]]
    if own_features is not None and config.own_feature:
        queries.append(own_features)
    maps = image.features.similarity(torch.cat(queries)).unflatten(0, (len(queries), -1)).transpose(0, 1)
    centres = image.places[index] if centres is None else centres
    return _Score(image, maps, (surface.mu[index], surface.sd[index]), centres, sigma, config.own_feature)


def _mapped_residuals(surface, lifted, image):
    """The source's residuals (Q, 2, 2) in the target, by the linear map that the neighbours of j* suggest."""
    there = image.places[surface.neighbours[lifted.index]] - image.places[lifted.index][:, None]
    here, ratio = lifted.around, image.size / lifted.size
    gram = here.transpose(1, 2) @ here
    ridge = LOCAL_RIDGE * gram.diagonal(dim1=1, dim2=2).sum(1)[:, None, None].clamp(min=1e-9) * torch.eye(2).to(gram)
    local = torch.linalg.solve(gram + ridge, here.transpose(1, 2) @ there + ratio * ridge)
    return lifted.residual @ local


class _Score:
    """The score of step 2 as a function of the place in the target image.

    maps: (Q, 1 or 2, cells * cells) similarity to j* and, if given, to the query's own feature; presence: mu, sd (Q,).
    """

    def __init__(self, image, maps, presence, centres, sigma, own_feature):
        self.grid, self.camera = image.features.grid, image.alignment.camera
        self.maps = maps.unflatten(2, (self.grid.cells, self.grid.cells))
        self.mu, self.sd = (value[:, None] for value in presence)
        self.centres, self.sigma, self.own_feature = centres, sigma, own_feature

    def __call__(self, places):
        """(log p_sem p_spat, whole score) at ``places`` (Q, N, 2), both (Q, N)."""
        cells = self.grid.pixel_to_cell(self.camera.to_pixels(places))
        normalised = cells * (2 / max(self.grid.cells - 1, 1)) - 1
        sampled = torch.nn.functional.grid_sample(self.maps, normalised[:, :, None], padding_mode="border", align_corners=True)[..., 0]
        spatial = -(places - self.centres[:, None]).square().sum(-1) / (2 * self.sigma**2)
        likelihood = log_semantic(sampled[:, 0], self.mu, self.sd) + spatial
        return likelihood, likelihood + self.own_feature * sampled[:, 1:].sum(1)

    def mean(self):
        """Softmax-weighted mean over a window around the projected point, (Q, 2)."""
        places = self.centres[:, None] + _lattice(LATTICE_REACH * self.sigma, self.centres)
        weight = self(places)[1].softmax(1)
        return (weight[..., None] * places).sum(1)

    def argmax(self):
        """Best cell of the whole image, then the best place around it between the cells, (Q, 2)."""
        cells = self.camera.to_normalised(self.grid.cell_centres(self.centres.device))
        best = cells[self(cells.expand(len(self.centres), -1, -1))[1].argmax(1)]
        places = best[:, None] + _lattice(self.grid.cell_size / self.camera.longer_side, self.centres)
        choice = self(places)[1].argmax(1)
        return places[torch.arange(len(places), device=places.device), choice]


def _lattice(reach, like):
    """(LATTICE^2, 2) offsets from -reach to reach; the middle one comes first so that ties stay in place."""
    line = torch.linspace(-1, 1, LATTICE, dtype=like.dtype, device=like.device)
    offsets = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).reshape(-1, 2)
    return reach * offsets[offsets.square().sum(1).argsort(stable=True)]
