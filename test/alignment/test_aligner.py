"""The aligner as its users see it."""

from dataclasses import replace

import pytest
import torch
from alignment_scores import keypoint_pck, mean, rotation_error
from simulated_category import empty_betas

from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.alignment.config import AlignConfig, ReferenceConfig
from semalign3d_core.alignment.observation import MARGIN
from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.perception.evidence import FeatureMap
from semalign3d_core.runtime.errors import InputError


@pytest.mark.slow
def test_unseen_instances_are_aligned(chair):
    category, aligner = chair
    images = [category.image(seed) for seed in range(40, 46)]
    alignments = [aligner.align(image.evidence) for image in images]
    assert all(rotation_error(a, i) < 30 for a, i in zip(alignments, images, strict=True))
    assert mean(keypoint_pck(a, i) for a, i in zip(alignments, images, strict=True)) > 0.9


def test_the_reported_placement_is_consistent(chair):
    category, aligner = chair
    alignment = aligner.align(category.image(3).evidence)
    projected = alignment.camera.to_pixels(alignment.camera.project(alignment.keypoints_3d))
    assert torch.allclose(projected, alignment.keypoints_2d, atol=1e-2)
    rigid = alignment.scale * aligner.model.shape @ alignment.rotation.T + alignment.translation
    assert (rigid - alignment.keypoints_3d).norm(dim=-1).max() < 0.2 * alignment.scale
    assert alignment.scale_kind == "relative" and 0 <= alignment.confidence <= 1
    assert set(alignment.terms) == {"dense", "sparse", "geometry", "background", "depth"}


def test_the_same_image_gives_the_same_alignment(chair):
    category, aligner = chair
    evidence = category.image(3).evidence
    assert torch.equal(aligner.align(evidence).keypoints_3d, aligner.align(evidence).keypoints_3d)


def seen_through(evidence, first, cells):
    """The evidence with features of a window alone: of the square of ``cells`` x ``cells`` cells from the cell ``first`` on."""
    (row, column), grid = first, evidence.features.grid
    side = grid.side // grid.cells
    window = (column * side, row * side, cells * side)
    values = evidence.features.values[:, row : row + cells, column : column + cells]
    return replace(evidence, features=FeatureMap(values, replace(grid, cells=cells, window=window)))


@pytest.mark.slow
def test_features_of_the_object_s_surroundings_are_enough(chair):
    """Cells far from the mask have no weight: whether there are any makes no difference."""
    category, aligner = chair
    evidence = category.image(3).evidence
    rows, columns = (evidence.features.grid.cells_inside(evidence.mask).amax(axis).nonzero()[:, 0] for axis in (1, 0))
    margin, cells = MARGIN + 1, evidence.features.grid.cells
    first = [max(int(where[0]) - margin, 0) // 2 * 2 for where in (rows, columns)]  # blocks of two cells, as without a window
    length = max(int(where[-1]) + margin + 1 - start for where, start in zip((rows, columns), first, strict=True))
    close = seen_through(evidence, first, min(length, cells - max(first)))
    assert close.features.grid.cells < cells
    whole, part = aligner.align(evidence), aligner.align(close)
    torch.testing.assert_close(part.keypoints_2d, whole.keypoints_2d, atol=0.5, rtol=0)
    assert abs(part.confidence - whole.confidence) < 0.02 and abs(part.energy - whole.energy) < 0.01


def test_self_occluded_keypoints_are_told(chair):
    category, aligner = chair
    images = [category.image(seed) for seed in range(20, 26)]
    agreement = [(aligner.align(i.evidence).visible == i.visible).float().mean() for i in images]
    assert mean(agreement) > 0.8


def test_keypoints_outside_the_picture_are_not_visible(chair):
    category, aligner = chair
    image = category.image(8, truncated=0.45)
    alignment = aligner.align(image.evidence)
    outside = ((alignment.keypoints_2d < -1) | (alignment.keypoints_2d > 240)).any(-1)
    assert outside.any() and not alignment.visible[outside].any()


def test_a_known_focal_length_is_not_changed(chair):
    category, aligner = chair
    image = category.image(4)
    truth = image.evidence.camera
    camera = PinholeCamera(torch.tensor([1.21, 1.27]), truth.principal, truth.height, truth.width, known=True)
    assert torch.equal(aligner.align(replace(image.evidence, camera=camera)).camera.focal, camera.focal)
    assert not torch.equal(aligner.align(image.evidence).camera.focal, truth.focal)


def test_metric_depth_gives_metres(chair):
    category, aligner = chair
    for seed in (5, 6, 9):
        image = category.image(seed, metric=0.8)
        camera = replace(image.evidence.camera, known=True)
        alignment = aligner.align(replace(image.evidence, camera=camera))
        assert alignment.scale_kind == "metric"
        error = (alignment.keypoints_3d - image.keypoints_3d)[image.visible].norm(dim=-1).median()
        assert error < 0.08 * image.keypoints_3d[:, 2].mean()


def test_a_known_diameter_gives_metres(chair):
    category, _ = chair
    aligner = Aligner(category.model(), known_diameter=1.7)
    alignment = aligner.align(category.image(5).evidence)
    spread = torch.cdist(alignment.keypoints_3d, alignment.keypoints_3d).max()
    assert alignment.scale_kind == "metric" and float(spread) == pytest.approx(1.7, rel=0.2)


def test_absent_keypoints_are_nan_and_the_rest_is_found(chair):
    category, _ = chair
    model = category.model()
    present = model.present.clone()
    present[9] = False
    weights = model.weights[:, :9] / model.weights[:, :9].sum(1, keepdim=True)
    model = replace(model, present=present, weights=torch.cat([weights, torch.zeros(len(weights), 1)], 1))
    alignment = Aligner(model).align(category.image(3).evidence)
    assert torch.isnan(alignment.keypoints_2d[9]).all() and torch.isfinite(alignment.keypoints_2d[:9]).all()
    assert not alignment.visible[9] and alignment.keypoint_confidence[9] == 0


@pytest.mark.slow
def test_a_model_without_modes_uses_those_of_its_betas(chair):
    category, _ = chair
    model = category.model()
    model = replace(model, modes=model.modes[:0], mode_variances=model.mode_variances[:0])
    fisher, rigid = Aligner(model), Aligner(replace(model, betas=empty_betas()))
    assert len(fisher.category.modes) == 20 and len(rigid.category.modes) == 0
    images = [category.image(seed) for seed in range(4)]
    assert mean(keypoint_pck(fisher.align(i.evidence), i) for i in images) > 0.8
    assert mean(keypoint_pck(rigid.align(i.evidence), i) for i in images) > 0.7


@pytest.mark.slow
def test_an_even_cover_of_rotations_replaces_training_poses(chair):
    category, _ = chair
    model = category.model()
    config = AlignConfig()
    aligner = Aligner(model, replace(config, bank=replace(config.bank, poses="uniform", size=2048)))
    images = [category.image(seed) for seed in range(4)]
    assert all(rotation_error(aligner.align(i.evidence), i) < 30 for i in images)


@pytest.mark.slow
def test_both_presets_report_the_same_function(chair):
    category, aligner = chair
    reference = Aligner(category.model(), replace(AlignConfig(solver="adamw"), reference=ReferenceConfig(steps=60, rotations=1)))
    evidence = category.image(1).evidence
    observation = aligner.observe(aligner.prepare(evidence))
    candidates = reference.solver.solve(observation)
    ours, theirs = aligner.judge(observation, candidates), reference.judge(observation, candidates)
    assert torch.equal(ours.energies, theirs.energies)
    assert aligner.align(evidence).energy < float(theirs.energies.min())


def test_the_energy_is_that_of_the_reported_keypoints(chair):
    category, aligner = chair
    moved = {f"offset.{k}.{axis}": 0.04 for k in range(10) for axis in "xyz"}
    biased, evidence = Aligner(replace(aligner.model, calibration=moved)), category.image(3).evidence
    alignment = biased.align(evidence)
    terms = biased.terms(evidence, alignment.keypoints_3d[None], alignment.camera)
    weights = vars(biased.config.energy)
    assert {name: float(value) for name, value in terms.items()} == pytest.approx(alignment.terms, abs=1e-5)
    assert sum(weights[name] * value for name, value in alignment.terms.items()) == pytest.approx(alignment.energy, abs=1e-5)
    assert alignment.energy > aligner.align(evidence).energy + 0.01


def test_values_say_shortly_what_they_are(chair):
    category, aligner = chair
    alignment = aligner.align(category.image(3).evidence)
    values = alignment, alignment.tracking, alignment.alternatives, alignment.diagnostics, aligner.category
    assert all(len(repr(value)) < 600 for value in values) and "chair" in repr(alignment)


def test_unknown_names_are_refused(chair):
    category, aligner = chair
    with pytest.raises(InputError, match="fast"):
        Aligner(aligner.model, "quick")
    with pytest.raises(InputError, match="gauss_newton"):
        Aligner(aligner.model, AlignConfig(solver="magic"))


def test_features_of_another_width_are_refused_by_name(chair):
    category, aligner = chair
    evidence = category.image(1).evidence
    values = evidence.features.values
    narrow = replace(evidence, features=replace(evidence.features, values=values[:-1]), name="chair.png")
    expected = rf"chair.png.* {len(values) - 1} channels.*'chair' {len(values)}; .*\({aligner.model.backbone}\)"
    with pytest.raises(InputError, match=expected):
        aligner.align(narrow)
