"""The solvers: batches, derivatives, known poses, halving."""

import math
from dataclasses import replace

import pytest
import torch

from semalign3d_core.alignment import energy
from semalign3d_core.alignment.config import BankConfig
from semalign3d_core.alignment.gauss_newton import residuals as robust
from semalign3d_core.alignment.gauss_newton import solver as gauss_newton
from semalign3d_core.alignment.gauss_newton.poses import FOCAL, Poses, poses_in_boxes, project_points
from semalign3d_core.alignment.gauss_newton.residuals import RobustResiduals
from semalign3d_core.alignment.gauss_newton.solver import bank_rotations, best_starts
from semalign3d_core.alignment.result import warm_start
from semalign3d_core.geometry.rotations import rotation_angle, rotation_from_vector, turned, uniform_rotations


@pytest.fixture(scope="module")
def scene(chair):
    category, aligner = chair
    image = category.image(2)
    return aligner, image, aligner.observe(aligner.prepare(image.evidence))


def moved(poses, step):
    """Poses after an unbounded step."""
    return Poses(rotation_from_vector(step[:, :3]) @ poses.rotation, poses.parameters + step[:, 3:])


def test_turned_rotations_are_exact_and_agree_to_second_order():
    rotations = uniform_rotations(20, torch.float64)
    directions = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    far = turned(rotations, directions)
    assert torch.allclose(far @ far.mT, torch.eye(3, dtype=torch.float64)) and torch.allclose(torch.det(far), far.new_ones(20))
    for size, error in ((0.1, 2e-3), (0.01, 2e-6)):
        small = size * torch.nn.functional.normalize(directions, dim=-1)
        assert (turned(rotations, small) - rotation_from_vector(small) @ rotations).abs().max() < error


def test_jacobian_of_the_projections(scene):
    aligner, _, observation = scene
    cloud, origin_depth = aligner.solver.fine, 5  # the depth of the origin stays
    poses = poses_in_boxes(aligner.category, observation, uniform_rotations(3), observation.boxes[:1].expand(3, 4))
    poses.coefficients.copy_(0.02 * torch.randn(poses.coefficients.shape, generator=torch.Generator().manual_seed(0)))
    jacobian = cloud.jacobian(cloud.project(poses, observation.focal), False)
    size = jacobian.shape[1]
    assert size == 3 + poses.parameters.shape[1] and not jacobian[:, origin_depth].any()
    for unknown in set(range(size)) - {origin_depth}:
        step = torch.zeros(3, size)
        step[:, unknown] = 2e-3
        ahead, behind = (cloud.project(moved(poses, sign * step), observation.focal).places for sign in (1, -1))
        assert torch.allclose(jacobian[:, unknown], (ahead - behind) / 4e-3, atol=3e-3), unknown
    known = cloud.jacobian(cloud.project(poses, observation.focal), True)
    assert not known[:, 3 + FOCAL].any() and torch.equal(known[:, :3], jacobian[:, :3])


def test_the_projections_are_those_of_the_keypoints(scene):
    aligner, _, observation = scene
    poses = poses_in_boxes(aligner.category, observation, uniform_rotations(3), observation.boxes[:1].expand(3, 4))
    poses.coefficients.copy_(0.02 * torch.randn(poses.coefficients.shape, generator=torch.Generator().manual_seed(0)))
    points = aligner.category.surface @ poses.keypoints(aligner.category)
    expected = project_points(points, observation.focal.expand(3, 2), torch.zeros(2))
    assert torch.allclose(aligner.solver.fine.project(poses, observation.focal).places.transpose(1, 2), expected, atol=1e-5)


def test_residuals_are_the_gradient_of_the_energy(scene, monkeypatch):
    """The weighted residuals are minus the derivative of the terms by the places, for dense and sparse points."""
    aligner, image, observation = scene
    monkeypatch.setattr(robust, "SPARSE_SIGMA", 0.0)
    weights, cloud = replace(aligner.config.energy, background=0.0), aligner.solver.fine
    poses = poses_in_boxes(aligner.category, observation, image.rotation[None], observation.boxes[:1])
    places = cloud.project(poses, observation.focal).places.requires_grad_()
    residuals = RobustResiduals(observation, cloud, weights, torch.tensor([0.08]))
    found = residuals(places.detach(), 0)
    sigma = 0.08 * observation.object_scale[None]
    pixels, cells = observation.pixels - observation.principal, observation.keypoint_cells - observation.principal
    dense, sparse = places[..., : cloud.dense].transpose(1, 2), places[..., cloud.dense :].transpose(1, 2)
    total = weights.dense * energy.dense_reconstruction(observation.pixel_log, pixels, dense, sigma)
    total = total + weights.sparse * energy.sparse_reconstruction(observation.keypoint_log, cells, sparse, sigma)
    (gradient,) = torch.autograd.grad(total.sum(), places)
    assert torch.allclose(found[:, :2], -gradient, atol=2e-4 * float(gradient.abs().max()))
    assert torch.allclose(residuals.energies()[0], total, atol=1e-5)


@pytest.mark.parametrize("of_keypoints", [False, True])
def test_background_residuals_are_the_gradient_of_their_energy(scene, of_keypoints, monkeypatch):
    """Points beside the object cost what the robust form of Eq. 11 says, dense ones and keypoints each in a mean of their own; what the
    keypoints cost is bounded."""
    aligner, image, observation = scene
    for name, value in (("BACKGROUND", 0.05 * (not of_keypoints)), ("KEYPOINT_BACKGROUND", 0.4 * of_keypoints), ("KEYPOINT_LIMIT", 0.7)):
        monkeypatch.setattr(robust, name, value)
    weights, cloud = replace(aligner.config.energy, dense=0.0, sparse=0.0, background=1.0), aligner.solver.fine
    poses = poses_in_boxes(aligner.category, observation, image.rotation[None], observation.boxes[:1])
    right = torch.tensor([1.0, 0.0])[:, None]
    places = cloud.project(poses, observation.focal).places + 0.6 * observation.size * right
    chosen = slice(cloud.dense, None) if of_keypoints else slice(cloud.dense)
    residuals, step = RobustResiduals(observation, cloud, weights, torch.full((3,), 0.08)), 2 * observation.field.spacing  # to a node
    found, *_ = residuals(places, 0), residuals(places + step * right, 1), residuals(places - step * right, 2)
    here, ahead, behind = residuals.energies()[:, 0]
    far = observation.field.sample(places[0].T[chosen] + observation.principal) / observation.object_scale
    cost = 0.5 * (robust.KNEE / robust.BACKGROUND_SCALE) ** 2 * torch.log1p((far / robust.KNEE) ** 2)
    mean = float(cost.mean())
    expected = 0.4 * 0.7 * (1 - math.exp(-mean / 0.7)) if of_keypoints else 0.05 * mean
    assert float(here) == pytest.approx(expected, rel=0.02)
    assert float(-found[0, 0].sum()) == pytest.approx(float(ahead - behind) / (2 * step), rel=0.05)
    assert not RobustResiduals(observation, cloud, weights, torch.full((1,), 0.08))(0 * places, 0)[0, 0].any()  # nothing inside the mask


@pytest.mark.slow
def test_few_warm_steps_bridge_the_turn_between_frames(chair, monkeypatch):
    """Plain reweighted least squares falls short of the solution; six longer steps leave less."""
    category, aligner = chair
    usual, relaxed, left = gauss_newton.WARM_STEPS, gauss_newton.WARM_RELAXATION, []

    def refined(observation, poses, steps, relaxation):
        monkeypatch.setattr(gauss_newton, "WARM_STEPS", steps)
        monkeypatch.setattr(gauss_newton, "WARM_RELAXATION", relaxation)
        solver = gauss_newton.GaussNewtonSolver(aligner.category, aligner.model.pose_rotations, aligner.config)
        return solver.refine(observation, poses).poses

    for seed in range(16):
        evidence = category.image(seed).evidence
        observation = aligner.observe(aligner.prepare(evidence))
        solution = refined(observation, warm_start(aligner.align(evidence).tracking, observation), 60, 1.0)
        start = Poses(rotation_from_vector(torch.tensor([[0.0, math.radians(15), 0.0]])) @ solution.rotation, solution.parameters)
        for relaxation in (1.0, relaxed):
            few = refined(observation, start, usual, relaxation)
            left.append((few.keypoints(aligner.category) - solution.keypoints(aligner.category)).norm(dim=-1).mean())
    plain, longer = torch.stack(left).unflatten(0, (-1, 2)).mean(0)
    assert longer < 0.9 * plain


def test_a_batch_of_starts_is_solved_as_each_alone(scene):
    aligner, _, observation = scene
    starts, _ = best_starts(aligner.solver.bank, aligner.category, observation, 4)
    together = aligner.solver.refine(observation, starts)
    for n in range(4):
        alone = aligner.solver.refine(observation, starts[n : n + 1])
        assert torch.allclose(together.keypoints[n], alone.keypoints[0], atol=2e-3)


def test_a_disturbed_truth_is_recovered(scene):
    aligner, image, observation = scene
    turn = rotation_from_vector(torch.tensor([[0.2, -0.15, 0.1]]))
    poses = poses_in_boxes(aligner.category, observation, turn @ image.rotation[None], observation.boxes[:1])
    rotation = aligner.solver.refine(observation, poses).rotations[0]
    assert rotation_angle(rotation, image.rotation) < 0.12 < rotation_angle(poses.rotation[0], image.rotation)


def test_the_energy_falls(scene, monkeypatch):
    aligner, _, observation = scene
    monkeypatch.setattr(gauss_newton, "STARTS", (8, 8, 8))
    config = replace(aligner.config, gauss_newton=replace(aligner.config.gauss_newton, sigma=(0.05, 0.05)))
    trace = gauss_newton.GaussNewtonSolver(aligner.category, aligner.model.pose_rotations, config).solve(observation).trace
    assert trace[-1] < trace[0] - 0.05


def test_sigma_falls_geometrically_ends_early_and_stays():
    values = gauss_newton.annealed(0.1, 0.025, 14).tolist()
    assert values[0] == pytest.approx(0.1) and values[12:] == pytest.approx([0.025] * 2) and values[11] > 0.025
    assert values[1] / values[0] == pytest.approx(values[2] / values[1])


def test_a_distant_rival_survives_halving(scene):
    aligner, _, observation = scene
    rotations = aligner.solver.solve(observation).rotations
    assert rotation_angle(rotations[:, None], rotations[None]).max() > torch.deg2rad(torch.tensor(35.0))


def test_starts_are_distinct_and_near_the_truth(scene):
    aligner, image, observation = scene
    starts, scores = best_starts(aligner.solver.bank, aligner.category, observation, 6)
    angle = rotation_angle(starts.rotation[:, None], starts.rotation[None]) + 10 * torch.eye(6)
    assert angle.min() > torch.deg2rad(torch.tensor(29.0))
    assert rotation_angle(starts.rotation, image.rotation).min() < 0.5
    assert (scores > 0).all()


def test_starts_fill_their_boxes(scene):
    aligner, _, observation = scene
    boxes = observation.boxes[:1].expand(5, 4)
    poses = poses_in_boxes(aligner.category, observation, uniform_rotations(5), boxes)
    projected = aligner.solver.fine.project(poses, observation.focal).places + observation.principal[:, None]
    centre = (projected.amax(2) + projected.amin(2)) / 2
    assert torch.allclose(centre, (boxes[:, :2] + boxes[:, 2:]) / 2, atol=0.06)


def test_bank_of_few_and_of_no_training_poses():
    few = bank_rotations(uniform_rotations(7), BankConfig(size=70))
    assert len(few) == 70 and torch.allclose(few[:7], uniform_rotations(7))
    assert len(bank_rotations(torch.zeros(0, 3, 3), BankConfig(size=64))) == 64
    assert len(bank_rotations(uniform_rotations(90), BankConfig(size=40))) == 40
    assert torch.allclose(few @ few.transpose(1, 2), torch.eye(3).expand(70, 3, 3), atol=1e-5)
