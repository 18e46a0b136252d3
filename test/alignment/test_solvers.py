"""The solvers: batches, derivatives, known poses, halving."""

import math
from dataclasses import replace

import pytest
import torch

from semalign3d_core.alignment import energy
from semalign3d_core.alignment.config import BankConfig, GaussNewtonConfig
from semalign3d_core.alignment.gauss_newton.poses import FOCAL, Poses, poses_in_boxes, project_points
from semalign3d_core.alignment.gauss_newton.residuals import BACKGROUND_KNEE, Pulls
from semalign3d_core.alignment.gauss_newton.solver import GaussNewtonSolver
from semalign3d_core.alignment.gauss_newton.viewpoints import bank_rotations, best_starts
from semalign3d_core.alignment.tracking import warm_start
from semalign3d_core.geometry.rotations import rotation_angle, rotation_from_vector, turned, uniform_rotations
from semalign3d_core.runtime.errors import InputError


@pytest.fixture(scope="module")
def scene(chair):
    category, aligner = chair
    image = category.image(2)
    return aligner, image, aligner.observe(aligner.prepare(image.evidence))


def moved(poses, step):
    """Poses after an unbounded step."""
    return Poses(rotation_from_vector(step[:, :3]) @ poses.rotation, poses.rest + step[:, 3:])


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
    assert size == 3 + poses.rest.shape[1] and not jacobian[:, origin_depth].any()
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
    points = aligner.category.lift @ poses.keypoints(aligner.category)
    expected = project_points(points, observation.focal.expand(3, 2), torch.zeros(2))
    assert torch.allclose(aligner.solver.fine.project(poses, observation.focal).places.transpose(1, 2), expected, atol=1e-5)


def test_pulls_are_the_gradient_of_the_energy(scene):
    """The weighted residuals are minus the derivative of the terms by the places, for dense and sparse points."""
    aligner, image, observation = scene
    config = replace(aligner.config.gauss_newton, background=0.0, keypoint_background=0.0, keypoint_sigma=0.0)
    cloud = aligner.solver.fine
    poses = poses_in_boxes(aligner.category, observation, image.rotation[None], observation.boxes[:1])
    places = cloud.project(poses, observation.focal).places.requires_grad_()
    pulls = Pulls(observation, cloud, config, torch.tensor([0.08]))
    pull = pulls(places.detach(), 0)
    sigma = 0.08 * observation.unit[None]
    centred = replace(observation, pixels=observation.pixels - observation.principal,
                      keypoint_cells=observation.keypoint_cells - observation.principal)  # fmt: skip
    dense, sparse = places[..., : cloud.dense].transpose(1, 2), places[..., cloud.dense :].transpose(1, 2)
    total = config.dense * energy.dense_reconstruction(centred.pixel_log, centred.pixels, dense, sigma)
    total = total + config.sparse * energy.sparse_reconstruction(centred.keypoint_log, centred.keypoint_cells, sparse, sigma)
    (gradient,) = torch.autograd.grad(total.sum(), places)
    assert torch.allclose(pull[:, :2], -gradient, atol=2e-4 * float(gradient.abs().max()))
    assert torch.allclose(pulls.energies()[0], total, atol=1e-5)


@pytest.mark.parametrize("of_keypoints", [False, True])
def test_background_pulls_are_the_gradient_of_their_energy(scene, of_keypoints):
    """Points beside the object cost what the robust form of Eq. 11 says, dense ones and keypoints each in a mean of their own; what the
    keypoints cost is bounded."""
    aligner, image, observation = scene
    weights = {"background": 0.05 * (not of_keypoints), "keypoint_background": 0.4 * of_keypoints, "keypoint_limit": 0.7}
    config, cloud = replace(aligner.config.gauss_newton, dense=0.0, sparse=0.0, **weights), aligner.solver.fine
    poses = poses_in_boxes(aligner.category, observation, image.rotation[None], observation.boxes[:1])
    right = torch.tensor([1.0, 0.0])[:, None]
    places = cloud.project(poses, observation.focal).places + 0.6 * observation.size * right
    chosen = slice(cloud.dense, None) if of_keypoints else slice(cloud.dense)
    pulls, step = Pulls(observation, cloud, config, torch.full((3,), 0.08)), 2 * observation.field.spacing  # from node to node
    pull, *_ = pulls(places, 0), pulls(places + step * right, 1), pulls(places - step * right, 2)
    here, ahead, behind = pulls.energies()[:, 0]
    far = observation.field.sample(places[0].T[chosen] + observation.principal) / observation.unit
    cost = 0.5 * (BACKGROUND_KNEE / config.background_scale) ** 2 * torch.log1p((far / BACKGROUND_KNEE) ** 2)
    mean = float(cost.mean())
    expected = 0.4 * 0.7 * (1 - math.exp(-mean / 0.7)) if of_keypoints else 0.05 * mean
    assert float(here) == pytest.approx(expected, rel=0.02)
    assert float(-pull[0, 0].sum()) == pytest.approx(float(ahead - behind) / (2 * step), rel=0.05)
    assert not Pulls(observation, cloud, config, torch.full((1,), 0.08))(0 * places, 0)[0, 0].any()  # nothing pulls inside the mask


@pytest.mark.parametrize(("name", "value"), [("keypoint_limit", 0), ("warm_relaxation", 0), ("warm_relaxation", 2)])
def test_settings_without_meaning_are_refused(name, value):
    with pytest.raises(InputError, match=f"{name} is {value}"):
        GaussNewtonConfig(**{name: value})


def test_few_warm_steps_bridge_the_turn_between_frames(chair):
    """Plain reweighted least squares falls short of the solution; six longer steps leave less."""
    category, aligner = chair
    usual, left = aligner.config.gauss_newton, []
    for seed in range(16):
        evidence = category.image(seed).evidence
        observation = aligner.observe(aligner.prepare(evidence))
        found, _ = warm_start(aligner.align(evidence).diagnostics["state"], observation)
        solution = solved(aligner, observation, replace(usual, warm_steps=60, warm_relaxation=1.0), found)
        start = Poses(rotation_from_vector(torch.tensor([[0.0, math.radians(15), 0.0]])) @ solution.rotation, solution.rest)
        for relaxation in (1.0, usual.warm_relaxation):
            few = solved(aligner, observation, replace(usual, warm_relaxation=relaxation), start)
            left.append((few.keypoints(aligner.category) - solution.keypoints(aligner.category)).norm(dim=-1).mean())
    plain, longer = torch.stack(left).unflatten(0, (-1, 2)).mean(0)
    assert longer < 0.9 * plain


def solved(aligner, observation, config, starts):
    """The :class:`Poses` that a solver with these settings makes of warm starts."""
    solver = GaussNewtonSolver(aligner.category, aligner.model.pose_rotations, replace(aligner.config, gauss_newton=config))
    return solver.refine(observation, starts).poses


def test_a_batch_of_starts_is_solved_as_each_alone(scene):
    aligner, _, observation = scene
    starts, _ = best_starts(aligner.solver.bank, aligner.category, observation, 4, aligner.config.bank)
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


def test_the_energy_falls(scene):
    aligner, _, observation = scene
    config = replace(aligner.config.gauss_newton, sigma=(0.05, 0.05), starts=(8, 8, 8))
    solver = type(aligner.solver)(aligner.category, aligner.model.pose_rotations, replace(aligner.config, gauss_newton=config))
    trace = solver.solve(observation).trace
    assert trace[-1] < trace[0] - 0.05


def test_a_distant_rival_survives_halving(scene):
    aligner, _, observation = scene
    rotations = aligner.solver.solve(observation).rotations
    assert rotation_angle(rotations[:, None], rotations[None]).max() > torch.deg2rad(torch.tensor(35.0))


def test_starts_are_distinct_and_near_the_truth(scene):
    aligner, image, observation = scene
    starts, scores = best_starts(aligner.solver.bank, aligner.category, observation, 6, aligner.config.bank)
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
