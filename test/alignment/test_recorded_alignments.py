"""Small alignments in float64, recorded with everything that they report; see ``recorded.py``."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from recorded import check
from simulated_category import SimulatedCategory

from semalign3d_core.alignment import result
from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.alignment.config import AlignConfig, BankConfig, ReferenceConfig
from semalign3d_core.alignment.judgement import MAPS, STATISTICS, ViewPrior, masked_spearman
from semalign3d_core.alignment.visibility import behind_depth_map, masked_quartiles, metric_scale, robust_line
from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.perception.evidence import FeatureMap
from semalign3d_core.runtime.config import load_preset
from semalign3d_core.runtime.threads import one_thread


@pytest.fixture(scope="module", autouse=True)
def one_processor():
    """Two threads add in another order, and modes of nearly equal variance come out turned."""
    with one_thread():
        yield


@pytest.fixture(scope="module")
def small():
    """(simulated category, its model in float64): few channels and points."""
    category = SimulatedCategory("chair", channels=16, samples=3000)
    return category, category.model(images=20, dense=150, modes=6).to(dtype=torch.float64)


def calibrated(model):
    """The model with a calibration of which every number counts."""
    rng = np.random.default_rng(0)
    calibration = {f"{kind}.{name}": float(rng.normal(0, 0.5)) for kind in MAPS[1:] for name in ("bias", *STATISTICS)}
    calibration |= {f"offset.{k}.{axis}": float(rng.normal(0, 0.02)) for k in range(10) for axis in "xyz"}
    return replace(model, calibration=calibration | {"depth_weight": 0.4})


def report(alignment):
    """What an alignment says, without the names."""
    return {name: value for name, value in vars(alignment).items() if name not in ("model_hash", "keypoint_names")}


def test_with_mask_and_disparity_then_tracked(small):
    category, model = small
    aligner = Aligner(model)
    first = aligner.align(category.image(3).evidence)
    view = {"view": (40.0, 20.0, 3.0), "size": (0.6, 0.6)}
    before = aligner.align(category.image(5, **view).evidence)
    after = category.image(5, view=(44.0, 21.0, 2.0), size=(0.66, 0.66)).evidence
    tracked = aligner.align(after, before)
    assert tracked.tracking.warm_frames == 1
    check("alignment_fast", first=report(first), before=report(before), tracked=report(tracked))


def test_with_little_evidence(small):
    """Without mask and depth; cut by the image; a mask of a few pixels; a window of the image; an image that is no square."""
    category, model = small
    aligner = Aligner(model)
    whole = category.image(6).evidence
    cut = category.image(8, truncated=0.4).evidence
    dot = torch.zeros_like(whole.mask)
    dot[100:103, 120:124] = True
    grid = replace(whole.features.grid, cells=33, window=(56, 48, 132))
    wide = category.image(9).evidence
    camera, rows = wide.camera, slice(0, 200)
    depth = replace(wide.depth, values=wide.depth.values[rows])
    low = PinholeCamera(camera.focal, camera.principal, 200, 240)
    grid_low = replace(wide.features.grid, height=200)
    values = torch.nn.functional.interpolate(wide.features.values[None], (59, 59), mode="bilinear")[0]
    cases = {
        "alone": replace(whole, mask=None, depth=None),
        "cut": cut,
        "dot": replace(whole, mask=dot, depth=None),
        "window": replace(whole, features=FeatureMap(whole.features.values[:, 12:45, 14:47], grid)),
        "odd": replace(whole, features=FeatureMap(values, replace(whole.features.grid, cells=59)), mask=None),
        "low": replace(wide, features=FeatureMap(wide.features.values, grid_low), mask=wide.mask[rows], depth=depth, camera=low),
    }
    check("alignment_little", **{name: report(aligner.align(evidence)) for name, evidence in cases.items()})


def test_with_calibration_metric_depth_and_known_camera(small):
    category, model = small
    aligner = Aligner(calibrated(model))
    metric = category.image(5, metric=0.8).evidence
    known = replace(metric, camera=replace(metric.camera, focal=metric.camera.focal * torch.tensor([1.02, 0.98]), known=True))
    turning = replace(model, calibration={"axis_x": 0.0, "axis_y": 0.6, "axis_z": 0.8})
    present = model.present.clone()
    present[4] = False
    weights = torch.cat([model.weights[:, :4], 0 * model.weights[:, 4:5], model.weights[:, 5:]], 1)
    lacking = replace(model, present=present, weights=weights / weights.sum(1, keepdim=True))
    check(
        "alignment_calibrated",
        metric=report(aligner.align(metric)),
        known=report(aligner.align(known)),
        turning=report(Aligner(turning, known_diameter=1.3).align(metric)),
        lacking=report(Aligner(lacking).align(category.image(4).evidence)),
        rigid=report(Aligner(replace(model, modes=model.modes[:0], mode_variances=model.mode_variances[:0])).align(metric)),
    )


def test_other_settings(small):
    category, model = small
    evidence = category.image(7).evidence
    uniform = AlignConfig(bank=BankConfig(poses="uniform", size=300, extended=False), view_weight=0.2, found_threshold=0.9)
    few = AlignConfig(bank=BankConfig(size=40), keypoint_bias=False)
    published = load_preset(AlignConfig, "align", "reference")
    short = replace(published.reference, steps=25, focals=(0.9, 1.8), rotations=2)
    adamw = Aligner(model, replace(published, reference=short))
    cold = adamw.align(evidence)
    check(
        "alignment_settings",
        uniform=report(Aligner(model, uniform).align(evidence)),
        few=report(Aligner(calibrated(model), few).align(evidence)),
        adamw=report(cold),
        warm=report(adamw.align(evidence, replace(cold, found=True))),
    )


def test_energies_along_the_published_schedule(small):
    """Every term with a weight, at steps in every part of the schedule."""
    category, model = small
    aligner = Aligner(model, load_preset(AlignConfig, "align", "reference"))
    observation = aligner.observe(aligner.prepare(category.image(7).evidence))
    candidates = Aligner(model).solver.solve(observation)
    steps = (0, 150, 400, 600, 650, 850, 999)
    generator = torch.Generator().manual_seed(3)
    energies = {s: aligner.solver._energy(observation, candidates.keypoints, candidates.focal, s, generator) for s in steps}
    check("alignment_schedule", energies=energies)


def test_the_default_settings_are_those_of_the_presets():
    """``fast`` is the default; the published values stand in the paper's Table 5."""
    assert load_preset(AlignConfig, "align", "fast") == AlignConfig()
    published = load_preset(AlignConfig, "align", "reference")
    assert replace(published.reference, category_schedules={}) == ReferenceConfig()
    check("alignment_config", fast=AlignConfig(), published=published)


def test_statistics_of_readings():
    """Small hand-made arrays: lines, quartiles, ranks, metric scale; what does not count has no weight."""
    x = torch.tensor([0.0, 1, 2, 3, 4, 5, 6, 7, 8, 9], dtype=torch.float64)
    usable = torch.ones(10, dtype=torch.bool)
    y = 0.5 * x + 2
    y[3] = 40
    slope, offset = robust_line(x, y, usable.double())
    assert float(slope) == pytest.approx(0.5, abs=0.02) and float(offset) == pytest.approx(2, abs=0.1)
    assert masked_quartiles(x, x < 5).tolist() == [1, 2, 3] and masked_quartiles(x, x < 0).tolist() == [0, 0, 0]
    depth = torch.full((10,), 0.5, dtype=torch.float64)
    seen = torch.full((10,), 1.5, dtype=torch.float64)
    seen[[0, 1]] = torch.tensor([9.0, torch.nan], dtype=torch.float64)
    assert float(metric_scale(seen, depth, usable)) == pytest.approx(3)
    assert torch.isnan(metric_scale(seen, depth, x > 2)) and not torch.isnan(metric_scale(seen, depth, x > 1))
    assert float(masked_spearman(x[None], x[None] ** 3, usable[None])) == pytest.approx(1)
    assert float(masked_spearman(x[None], -x[None], (x < 5)[None])) == pytest.approx(-1)
    assert float(masked_spearman(x[None], x[None], (x < 4)[None])) == 0
    z = 1 + 0.1 * x
    at, behind = torch.tensor([1.5, 1.5], dtype=torch.float64), torch.tensor([1 / 1.5, 1 / 1.2], dtype=torch.float64)
    hidden = behind_depth_map(1 / z, z, usable, behind, at, 1.0)
    assert hidden.tolist() == [False, True]
    assert behind_depth_map(1 / z, z, x < 7, behind, at, 1.0).tolist() == [False, False]  # too few readings
    assert behind_depth_map(1 / z, z, usable, behind, at, 1.6).tolist() == [False, False]
    check("alignment_readings", line=robust_line(x.sin(), x.cos() + x, (x > 2).double()), quartiles=masked_quartiles(x.sin(), x > 1))


def test_a_view_costs_what_it_is_rare():
    turned = torch.linalg.qr(torch.randn(12, 3, 3, dtype=torch.float64)).Q
    turned = turned * torch.linalg.det(turned)[:, None, None]
    axis = torch.tensor([0.0, 0.6, 0.8], dtype=torch.float64)
    priors = {"all": ViewPrior(turned[:8]), "about": ViewPrior(turned[:8], axis), "none": ViewPrior(turned[:0])}
    check("alignment_views", **{name: prior(turned) for name, prior in priors.items()})


def test_when_a_track_goes_on(small):
    category, model = small
    aligner = Aligner(model)
    alignment = replace(aligner.align(category.image(3).evidence), found=True)
    state, known = alignment.tracking, aligner.model_hash
    assert result.start_of(alignment, known) is state and result.start_of(None, known) is None
    for ended in ({"found": False}, {"model_hash": "other"}, {"tracking": None}):
        assert result.start_of(replace(alignment, **ended), known) is None
    at = {frames: result.start_of(replace(alignment, tracking=replace(state, warm_frames=frames)), known) for frames in (14, 15)}
    assert at[14] is not None and at[15] is None
    box = (0.2, 0.3, 0.6, 0.5)
    state = replace(state, mask_box=box)
    moved = {shift: result.continues(state, (0.2 + shift, 0.3, 0.6 + shift, 0.5)) for shift in (0.13, 0.15)}
    assert moved == {0.13: True, 0.15: False}  # 0.35 of 0.4
    assert not result.continues(state, None) and not result.continues(replace(state, mask_box=None), box)
    assert result.continues(replace(state, mask_box=None), None)
    shown = replace(alignment, tracking=replace(state, mask_box=(0.1, 0.2, 0.5, 0.7)))
    assert result.last_seen(shown, known, 100) == (9.5, 19.5, 49.5, 69.5) and result.last_seen(shown, "other", 100) is None
    worse = {rise: replace(alignment, tracking=replace(state, score=state.score + rise)) for rise in (0.11, 0.13)}
    assert [result.needs_search(later, state) for later in worse.values()] == [False, True]
    assert result.needs_search(replace(alignment, found=False), state)
    inside = result.inside_image(torch.tensor([[-0.4, 0], [-0.6, 0], [9.4, 0], [9.6, 0], [0, 4.4], [0, 4.6], [torch.nan, 0]]),
                                 PinholeCamera.centred(1.0, 5, 10))  # fmt: skip
    assert inside.tolist() == [True, False, True, False, True, False, False]
