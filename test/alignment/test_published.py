"""The published optimiser: likelihoods against vectors, its schedules, and the term that keeps its scale."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from published import likelihood

from semalign3d_core.alignment.aligner import SOLVERS, Aligner
from semalign3d_core.alignment.config import AlignConfig
from semalign3d_core.runtime.config import load_preset

VECTOR = "test/data/vectors/semalign3d/presence_score.npz"


@pytest.fixture
def vector(request):
    with np.load(request.config.rootpath / VECTOR) as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored}


def test_presence_p_value(vector):
    score = likelihood.presence_p_value(vector["x"], vector["mean"], vector["var"].sqrt())
    assert torch.allclose(score, vector["score"], atol=2e-6, equal_nan=True)
    simple = likelihood.presence_p_value(vector["simple_x"], vector["simple_mean"], vector["simple_sd"])
    assert torch.allclose(simple, vector["simple_score"], atol=2e-6, equal_nan=True)


def test_max_normalised_normal(vector):
    distance, sigma = vector["dist"][:, None], vector["sigma"]
    assert torch.allclose(likelihood.log_normal_density(distance, sigma), vector["log_normal_pdf"], rtol=1e-4, atol=1e-5)
    assert torch.allclose(likelihood.log_spatial(distance, sigma), vector["log_max_normalised"], rtol=1e-4, atol=1e-5)
    assert torch.allclose(likelihood.log_spatial(distance, sigma).exp(), vector["max_normalised"], rtol=1e-4, atol=1e-5)


def test_combined_likelihood_is_the_product():
    pixels, points = torch.tensor([[0.0, 0.0]]), torch.tensor([[[0.3, 0.4]]])
    log = likelihood.combined_log_likelihood(torch.tensor([[-1.0]]), pixels, points, torch.tensor([0.5]))
    assert log.item() == pytest.approx(-1.5)


def test_published_schedules():
    config = load_preset(AlignConfig, "align", "reference").reference
    bottle = config.category_schedules["bottle"]
    assert np.interp((0, 150, 300, 400, 900), *config.schedules.sigma_dense) == pytest.approx([1, 0.55, 0.1, 0.065, 0.03])
    assert np.interp((400, 600, 700, 1000), *config.schedules.weight_sparse) == pytest.approx([0, 5, 10, 1])
    assert np.interp(800, *bottle.weight_background) == pytest.approx(0.5) and np.interp(300, *bottle.sigma_sparse) == pytest.approx(0.3)
    assert bottle.sigma_dense == config.schedules.sigma_dense


def test_a_category_has_the_schedules_that_the_preset_gives_it(chair):
    _, aligner = chair
    config = load_preset(AlignConfig, "align", "reference")
    for name, expected in (("chair", config.reference.schedules), ("bottle", config.reference.category_schedules["bottle"])):
        tensors = replace(aligner.category, name=name)
        assert SOLVERS["adamw"](tensors, aligner.model.pose_rotations, config).schedules == expected


@pytest.mark.slow
def test_depth_regularisation_alone_fixes_the_distance_of_free_keypoints(chair):
    """An object twice as large at twice the distance looks the same to all other terms."""
    category, aligner = chair
    evidence = category.image(1).evidence
    alignment = aligner.align(evidence)
    keypoints = torch.stack([alignment.keypoints_3d, 2 * alignment.keypoints_3d])
    terms = aligner.terms(evidence, keypoints, alignment.camera)
    assert all(abs(first - second) < 0.1 for name, (first, second) in terms.items() if name != "depth")
    assert terms["depth"][1] > terms["depth"][0] + 0.9
    usual, observation, moved = load_preset(AlignConfig, "align", "reference"), aligner.observe(aligner.prepare(evidence)), []
    starts = 1.4 * alignment.keypoints_3d[None]
    for config in (usual, replace(usual, energy=replace(usual.energy, depth=0.0))):
        solver = Aligner(aligner.model, config).solver
        found = solver._descend(observation, starts, alignment.camera.focal[None], range(900, 1000))
        moved.append(float((found.keypoints - starts)[..., 2].mean()))
    assert moved[0] < -0.2 and abs(moved[1]) < 0.1
