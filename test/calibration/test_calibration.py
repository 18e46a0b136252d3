"""Confidence: logistic maps, calibration on training images, selection."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from simulated_category import SimulatedCategory

from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.alignment.gauss_newton.poses import Candidates
from semalign3d_core.alignment.judgement import choose, masked_spearman, rotation_distance
from semalign3d_core.calibration import confidence_maps as calibration
from semalign3d_core.calibration.confidence_maps import calibrate, keypoints_right, rotation_right
from semalign3d_core.calibration.logistic import area_under_roc, fit_logistic
from semalign3d_core.calibration.perturbed_views import beside_the_object
from semalign3d_core.calibration.symmetry import azimuth_spread, principal_axes, turning_losses, undetermined_axis_of
from semalign3d_core.geometry.rotations import rotation_from_vector, uniform_rotations


def test_logistic_regression_recovers_its_truth():
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(6000, 2, dtype=torch.float64, generator=generator)
    truth = torch.tensor([0.5, 2.0, -1.0], dtype=torch.float64)
    probability = torch.sigmoid(truth[0] + table @ truth[1:])
    labels = torch.rand(6000, dtype=torch.float64, generator=generator) < probability
    fitted = torch.tensor(fit_logistic(table, labels, torch.zeros(3, dtype=torch.float64)), dtype=torch.float64)
    assert torch.allclose(fitted, truth, atol=0.15)
    order = (fitted[0] + table @ fitted[1:]).argsort()
    chances, right = torch.sigmoid(fitted[0] + table @ fitted[1:])[order], labels[order].double()
    gaps = [abs(float(a.mean() - b.mean())) for a, b in zip(chances.chunk(10), right.chunk(10), strict=True)]
    assert sum(gaps) / len(gaps) < 0.03  # in ten equally filled bins


def test_few_samples_stay_near_the_prior():
    prior = torch.tensor([1.0, -2.0], dtype=torch.float64)
    table = torch.tensor([[0.1], [0.2]], dtype=torch.float64)
    assert fit_logistic(table[:0], torch.zeros(0, dtype=torch.bool), prior) == prior.tolist()
    assert fit_logistic(table, torch.tensor([True, True]), prior)[1] == pytest.approx(-2, abs=1.0)


def test_area_under_roc():
    labels = torch.tensor([True, True, False, False])
    assert area_under_roc(torch.tensor([3.0, 2.0, 1.0, 0.0]), labels) == 1
    assert area_under_roc(torch.tensor([1.0, 1.0, 1.0, 1.0]), labels) == 0.5


def test_rank_correlation_ignores_what_is_not_usable():
    first = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 99.0]])
    second = torch.tensor([[1.0, 4.0, 9.0, 16.0, 25.0, 36.0, -99.0]])
    usable = torch.tensor([[True] * 6 + [False]])
    assert masked_spearman(first, second, usable).item() == pytest.approx(1.0)
    assert masked_spearman(first, -second, usable).item() == pytest.approx(-1.0)
    assert masked_spearman(first, second, usable & (first < 4)).item() == 0


def test_a_turn_about_an_undetermined_axis_is_no_difference():
    axis, rotation = torch.tensor([0.0, 1.0, 0.0]), uniform_rotations(5)[3]
    turned = rotation @ rotation_from_vector(2.0 * axis)
    assert rotation_distance(turned[None], rotation).item() == pytest.approx(2.0, abs=1e-3)
    assert rotation_distance(turned[None], rotation, axis).item() == pytest.approx(0.0, abs=2e-3)
    assert rotation_right(turned, rotation, axis) and not rotation_right(turned, rotation)


def test_keypoints_are_right_by_the_box_of_their_annotation():
    truth = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 50.0], [torch.nan, torch.nan]])
    near, far = truth.clone(), truth.clone()
    near[:3] += 6.0
    far[:3] += 12.0
    assert keypoints_right(torch.stack([near, far]), truth).tolist() == [True, False]


@pytest.mark.slow
def test_calibration_on_training_images():
    category = SimulatedCategory("chair", channels=32)
    model = category.model(dense=120)
    images = [category.image(seed) for seed in range(300, 308)]
    keypoints = torch.stack([torch.where(i.visible[:, None], i.keypoints, torch.nan) for i in images])
    values = calibrate(model, [i.evidence for i in images], keypoints, truth_rotations=torch.stack([i.rotation for i in images]))
    assert all(isinstance(v, float) for v in values.values()) and "axis_x" not in values
    assert {"pose.bias", "keypoints.energy", "present.contrast", "depth_weight"} <= set(values)
    assert 0 <= values["depth_weight"] <= 0.15 and values["present.auroc"] > 0.9
    aligner = Aligner(replace(model, calibration=values))
    found = [aligner.align(category.image(seed).evidence) for seed in range(4)]
    assert all(alignment.found for alignment in found)
    assert all(alignment.confidence == alignment.diagnostics.probabilities["found"] for alignment in found)


@pytest.mark.parametrize("window", [None, (60, 40, 150)])
def test_the_mask_beside_the_object_lies_where_there_are_features(chair, window):
    category, _ = chair
    evidence = category.image(301).evidence
    evidence = replace(evidence, features=replace(evidence.features, grid=replace(evidence.features.grid, window=window)))
    moved = beside_the_object(evidence, torch.Generator().manual_seed(0)).mask
    assert moved.any() and not (moved & evidence.mask).any() and not (moved & ~evidence.features.grid.covered()).any()


def test_without_room_beside_the_object_the_features_are_moved(chair):
    evidence = replace(chair[0].image(301).evidence, mask=torch.ones(240, 240, dtype=torch.bool))
    changed = beside_the_object(evidence, torch.Generator().manual_seed(0))
    assert changed.mask is evidence.mask and not torch.equal(changed.features.values, evidence.features.values)


@pytest.mark.slow
def test_calibration_tries_every_kind_of_image_with_and_without_depth(chair, monkeypatch):
    category, aligner = chair
    images, tried = [category.image(seed) for seed in range(300, 316)], {}

    def named(kind, change):
        def changed(evidence, generator):
            return replace(change(evidence, generator), name=kind)

        return changed

    for group in ("HARDER", "IMPOSSIBLE"):
        monkeypatch.setattr(calibration, group, tuple(named(f"{group} {n}", c) for n, c in enumerate(getattr(calibration, group))))
    align = Aligner.align

    def noted_align(self, evidence, *more):
        tried.setdefault(evidence.name, set()).add(evidence.depth is None)
        return align(self, evidence, *more)

    monkeypatch.setattr(Aligner, "align", noted_align)
    calibrate(aligner.model, [i.evidence for i in images], torch.stack([i.keypoints for i in images]))
    assert len(tried) == 1 + len(calibration.HARDER) + len(calibration.IMPOSSIBLE)
    assert all(depths == {True, False} for depths in tried.values()), tried


def test_an_undetermined_axis_of_the_calibration_is_reported(chair):
    category, aligner = chair
    calibration, evidence = {"axis_x": 0.0, "axis_y": 1.0, "axis_z": 0.0}, replace(category.image(2).evidence, depth=None)
    alignment, plain = Aligner(replace(aligner.model, calibration=calibration)).align(evidence), aligner.align(evidence)
    assert torch.equal(alignment.undetermined_axis, torch.tensor([0.0, 1.0, 0.0])) and plain.undetermined_axis is None
    # What the object hides of itself is then as arbitrary as the turn; no depth map tells of other things, and all is in the picture.
    assert alignment.visible.all() and not plain.visible.all()


def test_an_axis_is_free_where_turning_about_it_costs_little():
    poses, axes = uniform_rotations(50), torch.eye(3)
    free, stiff = torch.tensor([0.9, 0.03, 1.0]), torch.tensor([0.9, 0.3, 1.0])
    assert torch.equal(undetermined_axis_of(axes, [free, free, stiff], poses), axes[1])  # the median image decides
    assert undetermined_axis_of(axes, [free, stiff, stiff], poses) is None
    assert undetermined_axis_of(axes, [torch.tensor([0.9, 0.15, 1.0])], poses) is None
    assert undetermined_axis_of(axes, [], poses) is None


def test_turning_a_chair_costs_about_every_axis_and_the_unit_of_length_does_not_matter(chair):
    category, aligner = chair
    evidence, axes = category.image(3).evidence, principal_axes(aligner.category)
    alignment = aligner.align(evidence)
    losses = turning_losses(aligner, evidence, alignment, axes)
    assert losses.min() > 0.1
    metres = replace(alignment, keypoints_3d=3 * alignment.keypoints_3d)
    assert torch.allclose(turning_losses(aligner, evidence, metres, axes), losses, atol=1e-3)


def test_an_axis_seen_from_one_side_only():
    nods, turns = (rotation_from_vector(angle[:, None] * torch.eye(3)[k]) for angle, k in
                   ((torch.linspace(-0.6, 0.6, 20), 0), (torch.linspace(-3.0, 3.0, 20), 1)))  # fmt: skip
    up, across = torch.eye(3)[1], torch.eye(3)[0]
    assert azimuth_spread(up, nods) < 1 < 15 < azimuth_spread(across, nods)
    assert azimuth_spread(up, turns) > 90 and azimuth_spread(up, nods[:0]) == float("inf")
    assert azimuth_spread(up, rotation_from_vector(torch.tensor([[0.0, 0.0, 0.4]])) @ nods) < 1  # a roll of the camera shows no other side


def test_margin_and_lead_are_gaps_to_solutions_far_away_and_do_not_count_turns_about_an_undetermined_axis():
    turns = rotation_from_vector(torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.3, 0.0], [0.0, 2.0, 0.0], [1.0, 0.0, 0.0]]))
    keypoints, focal, image = torch.ones(4, 3, 3), torch.ones(4, 2), SimpleNamespace(depth=None)
    early = turns.flip(0), torch.tensor([-0.3, -0.6, -0.7, -0.65])
    candidates = Candidates(keypoints, focal, turns, torch.zeros(1), early=early)
    energies = torch.tensor([-1.0, -0.95, -0.9, -0.7])

    def gaps(axis=None, found=candidates, known=None):
        chosen = choose(image, found, None, energies, 0.15, axis, known)
        return round(float(chosen.margin), 3), round(float(chosen.lead), 3)

    assert gaps() == (0.1, 0.1)
    assert gaps(torch.tensor([0.0, 1.0, 0.0])) == (0.3, 0.4)
    assert gaps(found=replace(candidates, early=None)) == (0.1, 0.1)
    assert gaps(known=(torch.tensor(0.25), torch.tensor(0.35))) == (0.25, 0.35)


def test_where_all_are_right_there_is_nothing_to_separate():
    """A model whose training images all succeed (or all fail) can be saved: it holds finite numbers only."""
    table = torch.rand(6, len(calibration.STATISTICS), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for labels in (torch.ones(6, dtype=torch.bool), torch.zeros(6, dtype=torch.bool)):
        entries = calibration._maps({name: (table, labels) for name in calibration.PRIOR})
        assert torch.tensor(list(entries.values())).isfinite().all() and "pose.auroc" not in entries
