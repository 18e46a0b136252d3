"""Small cases at the limits: empty tables, masks without weight, poses of scaled keypoints."""

from dataclasses import replace

import pytest
import torch
from simulated_category import SimulatedCategory, empty_betas
from values import check_values

from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.alignment.config import AlignConfig, ReferenceConfig
from semalign3d_core.alignment.gauss_newton.poses import Poses, poses_of_keypoints
from semalign3d_core.alignment.observation import inside_mask, sampled_cells
from semalign3d_core.geometry.rotations import rotation_angle


@pytest.fixture(scope="module")
def small():
    category = SimulatedCategory("chair", channels=16, samples=3000)
    return category, category.model(images=20, dense=150, modes=6).to(dtype=torch.float64)


def test_values_do_not_change_and_are_short():
    check_values("semalign3d_core.alignment")


def test_poses_of_keypoints_do_not_depend_on_the_unit(small):
    """Seen from its camera an object is as large as it is near; and the poses give the keypoints back."""
    category, model = small
    tensors = Aligner(model).category
    keypoints = category.image(3).keypoints_3d.double()[None]
    keypoints = keypoints / keypoints[..., 2].mean()
    log_focal = torch.tensor([0.2]).double()
    one, other = (poses_of_keypoints(tensors, scale * keypoints, log_focal) for scale in (1.0, 3.7))
    torch.testing.assert_close(one.parameters, other.parameters)
    torch.testing.assert_close(one.rotation, other.rotation)
    assert torch.equal(one.log_focal, log_focal) and one.parameters[0, 2] == 1
    rigid = poses_of_keypoints(tensors, tensors.shape[None] * 0.4 + torch.tensor([0.1, -0.2, 1.0]).double(), log_focal)
    middle = tensors.shape.mean(0) * 0.4 + torch.tensor([0.1, -0.2, 1.0]).double()
    expected = torch.tensor([0.1, -0.2]).double() / middle[2]
    torch.testing.assert_close(rigid.shift[0] * rigid.translation[0, 2], expected * middle[2] / 1.0, atol=0.02, rtol=0)


def test_the_published_optimiser_does_without_tables(small):
    category, model = small
    config = AlignConfig(solver="adamw", reference=ReferenceConfig(steps=3, rotations=1, focals=(1.5,)))
    alignment = Aligner(replace(model, betas=empty_betas()), config).align(category.image(3).evidence)
    assert torch.isfinite(alignment.keypoints_3d).all() and alignment.terms["geometry"] == 0


def test_no_step_of_the_solver_is_too_long(small):
    """However far the start: by turn, shift (object scales), log scale and log focal length."""
    category, model = small
    aligner = Aligner(model)
    solver, observation = aligner.solver, aligner.observe(aligner.prepare(category.image(3).evidence))
    start = solver.solve(observation).poses[:1]
    far = Poses(start.rotation, start.parameters + torch.tensor([0.1, 0.1, 0.0, 0.3, 0.6] + [0.0] * 6).double())
    solver.damping = solver.damping * 1e-9  # every step as long as it may be
    solver.least = solver.least * 1e-9
    moved, _ = solver._descend(observation, solver.fine, far, solver.warm_sigmas[:1], relaxation=1e9)
    change = (moved.parameters - far.parameters)[0].abs()
    limits = torch.tensor([0.5 * observation.object_scale, 0.5 * observation.object_scale, 0, 0.4, 0.3]).double()
    torch.testing.assert_close(change[:5], limits)
    assert rotation_angle(moved.rotation, far.rotation) < 3**0.5 * 0.5 + 1e-6


def test_cells_are_drawn_in_proportion_to_their_weight():
    weight = torch.zeros(40)
    weight[[3, 30]] = torch.tensor([1.0, 3.0])
    drawn = sampled_cells(weight, 8)
    assert drawn.tolist() == [3, 3, 30, 30, 30, 30, 30, 30]
    assert sampled_cells(torch.zeros(40), 8).tolist() == [2, 7, 12, 17, 22, 27, 32, 37]  # nothing is known: evenly
    assert sampled_cells(torch.ones(2, 3), 3).tolist() == [0, 2, 4]


def test_where_hardly_any_cell_lies_in_the_mask_those_that_touch_it_count():
    coverage = torch.zeros(6, 6)
    coverage[0, :] = 0.6
    coverage[1, :2] = 0.4
    assert inside_mask(coverage).sum() == 8
    coverage[2, :2] = 0.51
    assert inside_mask(coverage).sum() == 8 and inside_mask(coverage)[1].sum() == 0
    coverage[2, 0] = 0.5
    assert inside_mask(coverage).sum() == 10
