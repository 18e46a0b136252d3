"""How the model of a category comes about from its annotated images (method, section 1).

:func:`build_model` is the whole story: views of the images, the shape that explains them, and what follows from the shape.
"""

import logging
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semalign3d_core.category.annotations.checks import Problems, annotated_count, checked_keypoints, present_keypoints, usable_flip
from semalign3d_core.category.annotations.constellations import Constellations, constellations
from semalign3d_core.category.annotations.view_cache import ViewCache
from semalign3d_core.category.annotations.views import Providers, View, gather_view
from semalign3d_core.category.config import BuildConfig
from semalign3d_core.category.model import CategoryModel
from semalign3d_core.category.progress import Clock, Progress, no_progress
from semalign3d_core.category.published.dense_cloud import reference_cloud
from semalign3d_core.category.report import build_report, provenance, shape_warnings, surface_warnings
from semalign3d_core.category.shape.factor_model import FactorModel, deformation_modes
from semalign3d_core.category.shape.find import ShapeResult, find_shape
from semalign3d_core.category.shape.mirror import with_mirror_images, with_mirror_poses
from semalign3d_core.category.statistics.beta_tables import noisy_beta_table
from semalign3d_core.category.statistics.geometric_features import BetaTable
from semalign3d_core.category.surface.dense_cloud import merged_samples, supported_clusters
from semalign3d_core.category.surface.point_features import PointFeatures, cluster_features, keypoint_features
from semalign3d_core.category.surface.surface_map import SurfaceMap, surface_map
from semalign3d_core.datasets.records import ImageRecord, KeypointSpec
from semalign3d_core.runtime.errors import InputError, SemAlign3DError
from semalign3d_core.runtime.threads import one_thread

log = logging.getLogger(__name__)

CLUSTERING = 25  # iterations of k-means
COPIES = 5  # noisy ones of every completed shape in the statistics
UNKNOWN_FOCAL_SD, SMALLEST_FOCAL_SD = 0.4, 0.02  # spread of the logarithm: usual of unknown cameras, and least of known ones
SHOWN = 3  # images whose reasons are logged one by one


@dataclass(frozen=True)
class Training:
    """What a build knows before it makes the model.

    views: of the N usable images; present: (K,) bool, the category's keypoints that take part; shape: found from the views;
    problems: of the data; clock: seconds so far; category to config: as given
    """

    category: str
    spec: KeypointSpec
    providers: Providers
    config: BuildConfig
    views: list[View]
    present: Tensor
    shape: ShapeResult
    problems: Problems
    clock: Clock


def build_model(
    category: str,
    spec: KeypointSpec,
    records: Iterable[ImageRecord],
    providers: Providers,
    config: BuildConfig,
    work_folder: Path | None = None,
    progress: Progress = no_progress,
) -> tuple[CategoryModel, dict[str, Any]]:
    """The model of a category, without calibration, and the report of how it was built (JSON-serialisable).

    work_folder: keeps extracted views until the caller removes them, so that an interrupted build resumes;
    progress: called as (step name, done, total). The order of the records does not matter.
    Raises :class:`InputError` when the annotations cannot determine a shape.
    """
    training = find_views_and_shape(category, spec, records, providers, config, work_folder, progress)
    return finished(training, whole_model(training, progress))


def find_views_and_shape(
    category: str,
    spec: KeypointSpec,
    records: Iterable[ImageRecord],
    providers: Providers,
    config: BuildConfig,
    work_folder: Path | None,
    progress: Progress,
) -> Training:
    """The first half of :func:`build_model`: what is read of the images, and the shape that explains it."""
    if providers.depth is None and config.method == "reference":
        raise InputError("the preset reference builds on depth: give a source of it with --depth, or take the preset em")
    clock, problems = Clock(), Problems()
    flip = usable_flip(spec.flip_permutation)
    cache = ViewCache(work_folder, config.views, providers)
    views = _views(sorted(records, key=lambda r: r.name), spec, providers, config, cache, problems, progress)
    clock.lap("views")
    keypoints = torch.stack([v.keypoints for v in views]) if views else torch.zeros(0, len(spec.names), 2)
    present = present_keypoints(keypoints, spec.names, flip, config.policy, problems)
    labels = present.nonzero()[:, 0]
    data = constellations(views, labels, flip)
    shape = find_shape(data, config, progress)
    warn(shape_warnings(data, shape.report), problems)
    for k in labels[~shape.placed].tolist():
        present[k] = False
        problems.warnings.append(f"keypoint {spec.names[k]!r} is too rarely seen together with others for the published statistics: absent")
    clock.lap("shape")
    return Training(category, spec, providers, config, views, present, shape, problems, clock)


def whole_model(training: Training, progress: Progress) -> CategoryModel:
    """The second half of :func:`build_model`: everything that follows from the shape."""
    model, shape = training.shape.model, training.shape
    labels = training.present.nonzero()[:, 0]
    progress("statistics", 0, 1)
    betas = _relabelled(shape.table or _completed_betas(model, shape.data, training.config.seed), labels)
    progress("dense cloud", 0, 1)
    made = model_of(training, training.views, shape, betas, CLUSTERING)
    warn(surface_warnings(made.surface.over(labels), model), training.problems)
    training.clock.lap("statistics, cloud and features")
    return made


def finished(training: Training, model: CategoryModel) -> tuple[CategoryModel, dict[str, Any]]:
    """The model with its provenance, and the report."""
    t, labels = training, training.present.nonzero()[:, 0]
    report = build_report(t.views, t.shape, labels, t.spec.names, usable_flip(t.spec.flip_permutation), t.config, t.problems, t.clock)
    content = {name: value for name, value in report.items() if name != "seconds"}  # the same input gives the same model
    built_from = provenance(t.category, t.providers, t.views, t.config) | {"report": content}
    return replace(model, built_from=built_from), report


def warn(warnings: Iterable[str], problems: Problems) -> None:
    """Logs warnings and keeps them for the report."""
    for warning in warnings:
        problems.warnings.append(warning)
        log.warning(warning)


def _views(
    records: list[ImageRecord],
    spec: KeypointSpec,
    providers: Providers,
    config: BuildConfig,
    cache: ViewCache,
    problems: Problems,
    progress: Progress,
) -> list[View]:
    """Views of all usable images; what is wrong with the others follows the data policy."""
    flip, views, bad = usable_flip(spec.flip_permutation), [], 0
    with closing(providers.over(lambda record: _read(record, spec, providers, config, flip, cache), records)) as readings:
        for n, (record, reading) in enumerate(zip(records, readings, strict=True)):
            progress("reading images", n, len(records))
            if reading.dropped:
                if config.policy.on_bad_image == "error":
                    raise InputError(f"{record.name}: {'; '.join(reading.dropped)}; correct the annotation")
                problems.dropped[record.name] = reading.dropped
                log.warning("%s: dropped: %s", record.name, "; ".join(reading.dropped))
            if reading.error is not None:
                if config.policy.on_bad_image == "error":
                    raise reading.error
                problems.skipped[record.name] = str(reading.error)
                bad += 1
                if bad <= SHOWN:
                    log.warning("left out: %s", reading.error)
            elif reading.view is None:  # not a fault of the data, so never an error
                problems.skipped[record.name] = f"{annotated_count(record)} annotated keypoints do not place the object"
            else:
                if reading.fresh:
                    cache.store(record, reading.view)
                if flip is not None and len(reading.view.mirrored_pixel_features) == 0:
                    problems.warnings.append(f"{record.name}: no features of the mirror image; it is used unmirrored only")
                views.append(reading.view)
    if bad > SHOWN:
        log.warning("left out: %d more images; the report lists all with their reasons", bad - SHOWN)
    progress("reading images", len(records), len(records))
    return views


@dataclass(frozen=True)
class _Reading:
    """The view of an image, or why there is none.

    view: None if the image has too few annotated keypoints;  fresh: whether it was made now;  error: what prevents it;
    dropped: why keypoints were dropped
    """

    view: View | None
    fresh: bool
    error: SemAlign3DError | None
    dropped: list[str]


def _read(
    record: ImageRecord, spec: KeypointSpec, providers: Providers, config: BuildConfig, flip: Tensor | None, cache: ViewCache
) -> _Reading:
    """Called by several threads at a time."""
    minimum, dropped = config.policy.minimum_keypoints, list[str]()
    if annotated_count(record) < minimum:
        return _Reading(None, False, None, [])
    try:
        keypoints, dropped = checked_keypoints(record, spec.names)
        usable = int((~torch.isnan(keypoints[:, 0])).sum())
        if usable < minimum:
            raise InputError(f"{record.name}: {usable} usable keypoints, {minimum} are needed to place the object")
        stored = cache.stored(record)
        view = gather_view(record, keypoints, providers, config.views, flip) if stored is None else stored
    except SemAlign3DError as error:
        return _Reading(None, False, error, dropped)
    return _Reading(view, stored is None, None, dropped)


@one_thread()
def model_of(training: Training, views: list[View], shape: ShapeResult, betas: BetaTable, clustering: int) -> CategoryModel:
    """The model of some views with their part of the shape: modes, dense cloud, features and W; clustering: iterations of k-means."""
    model, data, spec, config = shape.model, shape.data, training.spec, training.config
    count, labels = len(spec.names), training.present.nonzero()[:, 0]
    modes, variances = deformation_modes(model.covariance, count, labels, config.modes)
    full_shape = torch.zeros(count, 3, dtype=torch.float64)
    full_shape[labels] = model.shape
    surface, dense = surface_cloud(views, model, data, config, clustering)
    surface = surface.among(labels, count)
    semantic = keypoint_features(views, training.present, usable_flip(spec.flip_permutation), config.dense.sd_floor)
    return CategoryModel(
        category=training.category,
        keypoint_names=tuple(spec.names),
        flip_permutation=tuple(int(k) for k in spec.flip_permutation),
        backbone=training.providers.backbone.name,
        present=training.present,
        shape=full_shape.float(),
        keypoint_features=semantic[0],
        keypoint_mu=semantic[1],
        keypoint_sd=semantic[2],
        dense_features=dense[0],
        dense_mu=dense[1],
        dense_sd=dense[2],
        weights=surface.weights.float(),
        offsets=surface.offsets.float(),
        plane=surface.plane.float(),
        betas=betas,
        modes=modes.float(),
        mode_variances=variances.float(),
        pose_rotations=with_mirror_poses(model.rotation, data.flip).float(),
        focal=_typical_focal(views),
        diameter_metres=_diameter_metres(views, model, data),
    )


def _relabelled(table: BetaTable, labels: Tensor) -> BetaTable:
    """A table of the present keypoints with the category's own labels."""
    members = {name: labels[getattr(table, name)] for name in ("edge1", "edge2", "triangle", "vertex")}
    return replace(table, **members)


def _completed_betas(model: FactorModel, data: Constellations, seed: int) -> BetaTable:
    """Betas (Eq. 10) of the completed shapes and their mirror images, noise added."""
    everything = torch.ones(model.completed.shape[:2], dtype=torch.bool)
    shapes, visible = with_mirror_images(model.completed, everything, data.flip)
    return noisy_beta_table(shapes, visible, COPIES, torch.Generator().manual_seed(seed))


def surface_cloud(
    views: list[View], model: FactorModel, data: Constellations, config: BuildConfig, clustering: int = CLUSTERING
) -> tuple[SurfaceMap, PointFeatures]:
    """The :class:`SurfaceMap` of the dense points over the keypoints of ``model``, and their features.

    Raises :class:`InputError` if too few pixels or images show the object.
    """
    if config.method == "reference":
        return reference_cloud(views, model, data, config, clustering)
    samples = merged_samples(views, model, data)
    centres, cluster = supported_clusters(samples, config.dense.points, clustering, config.seed)
    features = cluster_features(samples, cluster, len(centres), views, config.dense.sd_floor)
    return surface_map(centres, model.shape, model.plane), features


def _typical_focal(views: list[View]) -> Tensor:
    """(2,) mean (of the logarithm, as a length in units of L) and spread of the logarithm of the known focal lengths."""
    known = torch.tensor([float(v.focal.log().mean()) for v in views if bool(v.focal_known)])
    if len(known) == 0:
        return torch.tensor([float(views[0].focal[0]), UNKNOWN_FOCAL_SD])
    spread = float(known.std()) if len(known) > 1 else 0.0
    return torch.tensor([float(known.mean().exp()), max(spread, SMALLEST_FOCAL_SD)])


def _diameter_metres(views: list[View], model: FactorModel, data: Constellations) -> Tensor:
    """(2,) mean and sd of the instances' diameter where depth is metric: measured over modelled depth at the keypoints; NaN without."""
    diameters = []
    camera, size = model.in_camera(), torch.cdist(model.completed, model.completed).amax((1, 2))
    for n, view in enumerate(views):
        known = data.measured[n]
        if view.kind == "metric" and int(known.sum()) >= 3:
            low, high = view.inverse_range
            metres = 1 / (low + (high - low) * data.inverse[n][known])
            diameters.append(float((metres / camera[n][known, 2]).median() * size[n]))
    if not diameters:
        return torch.tensor([torch.nan, torch.nan])
    return torch.tensor([float(np.mean(diameters)), float(np.std(diameters))])
