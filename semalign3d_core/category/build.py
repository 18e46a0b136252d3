"""Building the model of a category from its annotated images (method, section 1).

``build_category`` reads like the method: views, start, EM, statistics, modes, dense cloud, semantics, W.
"""

import logging
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch

from semalign3d_core.calibration.folds import models_with_held_out
from semalign3d_core.calibration.training_views import calibrated
from semalign3d_core.category.annotations.checks import Problems, checked_keypoints, present_keypoints, usable_flip
from semalign3d_core.category.annotations.constellations import Constellations, mirror_rotation
from semalign3d_core.category.annotations.view_cache import ViewCache
from semalign3d_core.category.annotations.views import gather_view, published_depth
from semalign3d_core.category.config import BuildConfig
from semalign3d_core.category.model import BetaTable, CategoryModel
from semalign3d_core.category.published.dense_cloud import reference_cloud
from semalign3d_core.category.published.shape import reference_shape
from semalign3d_core.category.report import Clock, build_report, provenance
from semalign3d_core.category.shape.disparity_start import disparity_start
from semalign3d_core.category.shape.factor_model import deformation_modes, fit_factor_model, mirrored_shapes
from semalign3d_core.category.shape.hidden_keypoints import MaskFields
from semalign3d_core.category.shape.multiview import multiview_start, view_diversity
from semalign3d_core.category.shape.outline_model import fit_outline_model
from semalign3d_core.category.shape.silhouette import Outline
from semalign3d_core.category.statistics.tables import ValidityRules, beta_table, noise_augmentation
from semalign3d_core.category.surface.dense_cloud import cluster_features, merged_samples, supported_clusters, with_mirror_images
from semalign3d_core.category.surface.semantics import feature_statistics
from semalign3d_core.category.surface.surface_map import is_flat, surface_map
from semalign3d_core.category.trust import handedness_evidence, shape_warnings, surface_warnings
from semalign3d_core.runtime.config import to_dict
from semalign3d_core.runtime.errors import InputError, SemAlign3DError
from semalign3d_core.runtime.threads import one_thread

log = logging.getLogger(__name__)
FOLD_ITERATIONS = 10  # of k-means for models that only serve the calibration
SHOWN = 3  # images whose reasons are logged one by one


@dataclass(frozen=True)
class ShapeResult:
    """What the shape part of a build found.

    model: :class:`FactorModel`; data: the :class:`Constellations` it explains (focal lengths as found); report: for the
    build report; placed: (K,) bool, keypoints of the given data that are in model and data; table: the Betas it came from, or None
    (then those of the completed shapes are fitted)
    """

    model: object
    data: object
    report: dict
    placed: object
    table: object = None


def build_category(category, spec, records, providers, config=None, work_folder=None, progress=None):
    """The :class:`CategoryModel` of a category and the report of how it was built (JSON-serialisable).

    category: name; spec: :class:`KeypointSpec`; records: iterable of :class:`ImageRecord`; providers: :class:`Providers`;
    work_folder: keeps extracted views until the caller removes them, so that an interrupted build resumes;
    progress: called as (step name, done, total). The order of the records does not matter.
    Raises :class:`InputError` when the annotations cannot determine a shape.
    """
    config, progress = config or BuildConfig(), progress or (lambda *_: None)
    clock, problems = Clock(), Problems.none()
    flip = usable_flip(spec.flip_permutation)
    records = sorted(records, key=lambda r: r.name)
    cache = ViewCache(work_folder, to_dict(config.views), providers)
    views = _views(records, spec, providers, config, flip, cache, problems, progress)
    clock.lap("views")
    keypoints = torch.stack([v.keypoints for v in views]) if views else torch.zeros(0, len(spec.names), 2)
    present = present_keypoints(keypoints, spec.names, flip, config.policy, problems)
    labels = present.nonzero()[:, 0]
    data = constellations(views, labels, flip)
    shape = find_shape(data, config, progress)
    _warn(shape_warnings(data, shape.report, config.policy), problems)
    labels = _placed(labels, shape.placed, present, spec, problems)
    clock.lap("shape")
    quick = replace(config, dense=replace(config.dense, iterations=min(config.dense.iterations, FOLD_ITERATIONS)))

    def make_model(some, part, whole):  # Eq. 10 is not what models without a part of the images are asked about
        options = (config, progress) if whole else (quick, lambda *_: None, BetaTable.empty())
        return _category_model(category, spec, providers, some, present, part, *options)

    folds = min(config.folds, len(views)) if config.calibrate else 0
    with closing(models_with_held_out(views, shape, config, make_model, folds, progress)) as made:
        model = next(made)
        _warn(surface_warnings(model.surface.over(labels), shape.model), problems)
        clock.lap("statistics, cloud and features")
        model = calibrated(model, records, views, shape, providers, config, problems, progress, made)
    clock.lap("calibration")
    report = build_report(views, shape, labels, spec, config, problems, clock)
    model.built_from.update(provenance(category, providers, views, config), report=report)
    return model, report


def _views(records, spec, providers, config, flip, cache, problems, progress):
    """Views of all usable images; what is wrong with the others follows the data policy."""
    views, bad = [], 0
    with closing(providers.over(lambda record: _read(record, spec, providers, config, flip, cache), records)) as readings:
        for n, record in enumerate(records):
            progress("reading images", n, len(records))
            reading = next(readings)
            if reading is None:  # not a fault of the data, so never an error
                given = int((~np.isnan(record.keypoints[:, 0])).sum())
                problems.skipped[record.name] = f"{given} annotated keypoints do not place the object"
                continue
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
                continue
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
    """The view of an image, whether it was made now, or the error that prevents it; and why keypoints were dropped."""

    view: object = None
    fresh: bool = False
    error: SemAlign3DError | None = None
    dropped: tuple = ()


def _read(record, spec, providers, config, flip, cache):
    """The :class:`_Reading` of an image; None if it has too few annotated keypoints. Called by several threads at a time."""
    minimum, keypoints, dropped = config.policy.minimum_keypoints, None, []
    if int((~np.isnan(record.keypoints[:, 0])).sum()) < minimum:
        return None
    try:
        keypoints, dropped = checked_keypoints(record, spec.names)
        usable = int((~torch.isnan(keypoints[:, 0])).sum())
        if usable < minimum:
            raise InputError(f"{record.name}: {usable} usable keypoints, {minimum} are needed to place the object")
        stored = cache.stored(record)
        view = gather_view(record, keypoints, providers, config.views, flip) if stored is None else stored
    except SemAlign3DError as error:
        return _Reading(error=error, dropped=dropped)
    return _Reading(view, stored is None, dropped=dropped)


def constellations(views, labels, flip):
    """:class:`Constellations` of the keypoints ``labels`` (K',) of all views."""
    position = torch.full((len(views[0].keypoints),), -1)
    position[labels] = torch.arange(len(labels))
    longer = torch.tensor([max(v.height, v.width) for v in views]).double()
    pixels = torch.stack([v.keypoints for v in views])[:, labels].double()
    visible = ~torch.isnan(pixels[..., 0])
    principal = torch.stack([v.principal for v in views]).double()
    points = (pixels / longer[:, None, None] - principal[:, None]).nan_to_num(nan=0.0)
    # Focal lengths of the two axes are brought to one, the mean, by stretching y.
    focal = torch.stack([v.focal for v in views]).double()
    points = points * (focal[:, :1] / focal)[:, None]
    low, high = torch.stack([v.inverse_range for v in views]).unbind(1)
    inverse = (torch.stack([v.keypoint_inverse for v in views])[:, labels].double() - low[:, None]) / (high - low)[:, None]
    measured = visible & torch.isfinite(inverse)
    box = torch.stack([v.box for v in views]).double()
    keypoint_flip = None if flip is None else position[flip[labels]]
    return Constellations(
        points=points,
        visible=visible,
        inverse=torch.where(measured, inverse, 0.0),
        measured=measured,
        slope=torch.where(torch.tensor([v.kind == "disparity" for v in views]), torch.nan, (high - low) / low),
        size=(box[:, 2:] - box[:, :2]).amax(1) / longer,
        focal=focal[:, 0],
        flip=keypoint_flip,
        depth=torch.stack([published_depth(v, v.keypoint_inverse) for v in views])[:, labels].double().nan_to_num(nan=0.0),
        focal_known=torch.stack([v.focal_known for v in views]),
        outline=None if flip is None else _outline(views, labels, longer),
        masks=_mask_fields(views, principal, focal[:, :1] / focal),
    )


def _mask_fields(views, principal, stretch):
    """:class:`MaskFields` in the normalised coordinates of the image points."""
    nodes = views[0].mask_offset.shape[0] // 2  # per longer side; the field is twice as large
    origin = torch.stack([v.mask_origin for v in views]).double()
    return MaskFields(torch.stack([v.mask_offset for v in views]), (origin - principal) * stretch, stretch / nodes)


def _outline(views, labels, longer):
    low, high = torch.stack([v.inverse_range for v in views]).unbind(1)
    middle = (torch.stack([v.middle_inverse for v in views])[:, labels].double() - low[:, None]) / (high - low)[:, None]
    inset = torch.stack([v.keypoint_inset for v in views])[:, labels].double() / longer[:, None]
    return Outline(inset.nan_to_num(nan=0.0), middle.nan_to_num(nan=0.0), torch.isfinite(middle))


def _placed(labels, placed, present, spec, problems):
    """The labels of the placed keypoints; the others become absent."""
    for k in labels[~placed].tolist():
        present[k] = False
        problems.warnings.append(f"keypoint {spec.names[k]!r} is too rarely seen together with others for the published statistics: absent")
    return labels[placed]


def _warn(warnings, problems):
    problems.warnings.extend(warnings)
    for warning in warnings:
        log.warning(warning)


@one_thread()
def find_shape(data, config, progress=None):
    """Mean shape, covariance and poses of all images from keypoints and depth alone: :class:`ShapeResult`."""
    progress = progress or (lambda *_: None)
    if config.method == "reference":
        model, data, table, placed = reference_shape(data, config, progress)
        report = {"start": "reference", "diversity": view_diversity(model.rotation, data.flip)}
        return ShapeResult(replace(model, flat=is_flat(model.shape, len(data.points))), data, report, placed, table)
    start, report = _start(data, config, progress)
    model = fit_factor_model(start, data, config.em, lambda done, total: progress("EM", done, total))
    if is_flat(model.shape, len(data.points)):
        model = replace(model, flat=True)
        model = model if data.flip is None else fit_outline_model(model, data, config.em)
        report |= {"thickness": model.thickness}
    else:  # a flat shape is its own reversal
        report |= {"handedness_evidence": round(handedness_evidence(model, data, config.em), 2)}
    return ShapeResult(model, data, report, torch.ones(data.count, dtype=torch.bool))


def _start(data, config, progress):
    """The start that the configuration or the diversity of the views asks for."""
    generator = torch.Generator().manual_seed(config.seed)
    report = {"start": config.start}
    if config.start != "disparity":
        progress("multi-view start", 0, 1)
        multiview = multiview_start(data, config.multiview, generator)
        report |= {"diversity": multiview.diversity, "multiview_residual": multiview.cost, "depth_correlation": multiview.correlation}
        diverse = multiview.diversity >= config.diversity
        if config.start == "multiview" or diverse or not _depth_usable(data):
            return multiview.shape, report | {"start": "multiview"}
    progress("disparity start", 0, 1)
    return disparity_start(data, config.disparity, generator), report | {"start": "disparity"}


def _depth_usable(data):
    """Whether enough images tell the depth of four keypoints to start from it."""
    return int((data.measured.sum(1) >= 4).sum()) >= 4


@one_thread()
def _category_model(category, spec, providers, views, present, shape, config, progress, betas=None):
    """Everything that follows from the shape: Betas (unless given), modes, dense cloud, semantics, W."""
    model, data, count, labels = shape.model, shape.data, len(spec.names), present.nonzero()[:, 0]
    progress("statistics", 0, 1)
    if betas is None:
        betas = _relabelled(shape.table, labels) if shape.table else _completed_betas(model, data, labels, config)
    modes, variances = deformation_modes(model.covariance, count, labels, config.modes)
    full_shape = torch.zeros(count, 3, dtype=torch.float64)
    full_shape[labels] = model.shape
    progress("dense cloud", 0, 1)
    surface, dense = surface_cloud(views, model, data, config)
    surface = surface.among(labels, count)
    semantic = _keypoint_semantics(views, present, usable_flip(spec.flip_permutation), config)
    rotations = model.rotation if data.flip is None else torch.cat([model.rotation, mirror_rotation(model.rotation)])
    return CategoryModel(
        category=category,
        keypoint_names=tuple(spec.names),
        flip_permutation=tuple(int(k) for k in spec.flip_permutation),
        backbone=providers.backbone.name,
        present=present,
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
        pose_rotations=rotations.float(),
        focal=_typical_focal(views),
        diameter_metres=_diameter_metres(views, model, data),
    )


def _relabelled(table, labels):
    """A :class:`BetaTable` of the present keypoints with the category's own labels."""
    members = {name: labels[getattr(table, name)] for name in ("edge1", "edge2", "triangle", "vertex")}
    return replace(table, **members)


def _completed_betas(model, data, labels, config):
    """Betas of the completed shapes; noise copies keep exactly rigid features from becoming needles."""
    generator = torch.Generator().manual_seed(config.seed)
    shapes = mirrored_shapes(model.completed, data.flip)
    everything = torch.ones(len(shapes), len(labels), dtype=torch.bool)
    noisy, mask = noise_augmentation(shapes.float(), everything, config.betas.copies, config.betas.noise, generator)
    return _relabelled(beta_table(noisy, mask, rules=ValidityRules(minimum_samples=4 * config.betas.copies)), labels)


def surface_cloud(views, model, data, config):
    """The :class:`SurfaceMap` of the dense points over the keypoints of ``model``, and their features, mu and s."""
    if config.method == "reference":
        return reference_cloud(views, model, data, config)
    samples = with_mirror_images(merged_samples(views, model, data, config.dense), views)
    centres, cluster = supported_clusters(samples, config.dense, config.seed)
    if len(centres) == 0:
        raise InputError("no dense point is seen in enough images; check masks and depth maps, or annotate more images")
    features = cluster_features(samples, cluster, len(centres), views, config.dense.sd_floor)
    return surface_map(centres, model.shape, model.plane), features


def _keypoint_semantics(views, present, flip, config):
    """Features, mu and s of the keypoints over all images and mirror images (labels exchanged); 0 rows where absent."""
    observations = [v.keypoint_features.float() for v in views]
    seen = [~torch.isnan(v.keypoints[:, 0]) for v in views]
    for view in views:
        if flip is not None and len(view.mirrored_keypoint_features):
            observations.append(view.mirrored_keypoint_features.float()[flip])
            seen.append(~torch.isnan(view.keypoints[flip, 0]))
    observations, seen = torch.stack(observations, dim=1), torch.stack(seen, dim=1) & present[:, None]
    # feature_statistics wants the valid rows of each keypoint first
    order = (~seen).long().argsort(dim=1, stable=True)
    sorted_rows = torch.gather(observations, 1, order[..., None].expand_as(observations))
    mean, mu, sd = feature_statistics(sorted_rows, seen.sum(1))
    sd = sd.nan_to_num(nan=config.dense.sd_floor).clamp(min=config.dense.sd_floor)
    return mean * present[:, None], torch.where(present, mu, 0.0), torch.where(present, sd, 0.0)


def _typical_focal(views):
    known = torch.tensor([float(v.focal.log().mean()) for v in views if bool(v.focal_known)])
    if len(known) == 0:
        return torch.tensor([float(views[0].focal[0]), 0.4])  # the usual spread of unknown cameras
    spread = float(known.std()) if len(known) > 1 else 0.0
    return torch.tensor([float(known.mean().exp()), max(spread, 0.02)])


def _diameter_metres(views, model, data):
    """Mean and sd of the instances' diameter where depth is metric: measured over modelled depth at the keypoints."""
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
