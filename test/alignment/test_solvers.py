"""The solvers: batches, derivatives, known poses, halving."""

from dataclasses import replace

import pytest
import torch

from semalign3d_core.alignment.bank import bank_rotations, best_starts
from semalign3d_core.alignment.config import BankConfig
from semalign3d_core.alignment.poses import Poses, poses_in_boxes
from semalign3d_core.geometry import rotation_angle, rotation_from_vector, uniform_rotations


@pytest.fixture(scope="module")
def scene(chair):
    category, aligner = chair
    image = category.image(2)
    return aligner, image, aligner.observe(image.evidence)


def moved(solver, poses, step):
    """Poses after an unbounded step."""
    return Poses(
        rotation_from_vector(step[:, :3]) @ poses.rotation, poses.shift + step[:, 3:5], poses.log_scale + step[:, 5],
        poses.log_focal + step[:, 6], poses.coefficients + step[:, 7:],
    )  # fmt: skip


def test_jacobian_of_the_projections(scene):
    aligner, _, observation = scene
    solver = aligner.solver
    poses = poses_in_boxes(aligner.category, observation, uniform_rotations(3), observation.boxes[:1].expand(3, 4))
    poses = replace(poses, coefficients=0.02 * torch.randn(poses.coefficients.shape, generator=torch.Generator().manual_seed(0)))
    turned, position, projected, focal = solver._place(observation, poses)
    jacobian = solver._jacobian(poses, turned, position, projected, focal, observation)
    size = jacobian.shape[2]
    for unknown in range(size):
        step = torch.zeros(3, size)
        step[:, unknown] = 2e-3
        ahead, behind = (solver._place(observation, moved(solver, poses, sign * step))[2] for sign in (1, -1))
        numeric = (ahead - behind) / 4e-3
        assert torch.allclose(jacobian[:, :, unknown].transpose(1, 2), numeric, atol=3e-3), unknown


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
    rotation = aligner.solver.refine(observation, poses).rotations(aligner.category)[0]
    assert rotation_angle(rotation, image.rotation) < 0.12 < rotation_angle(poses.rotation[0], image.rotation)


def test_the_energy_falls(scene):
    aligner, _, observation = scene
    config = replace(aligner.config.gauss_newton, sigma=(0.05, 0.05), starts=(8, 8, 8))
    solver = type(aligner.solver)(aligner.category, aligner.model.pose_rotations, replace(aligner.config, gauss_newton=config))
    trace = solver.solve(observation).trace
    assert trace[-1] < trace[0] - 0.05


def test_a_distant_rival_survives_halving(scene):
    aligner, _, observation = scene
    rotations = aligner.solver.solve(observation).rotations(aligner.category)
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
    projected = aligner.solver._place(observation, poses)[2]
    centre = (projected.amax(1) + projected.amin(1)) / 2
    assert torch.allclose(centre, (boxes[:, :2] + boxes[:, 2:]) / 2, atol=0.06)


def test_bank_of_few_and_of_no_training_poses():
    few = bank_rotations(uniform_rotations(7), BankConfig(size=70))
    assert len(few) == 70 and torch.allclose(few[:7], uniform_rotations(7))
    assert len(bank_rotations(torch.zeros(0, 3, 3), BankConfig(size=64))) == 64
    assert len(bank_rotations(uniform_rotations(90), BankConfig(size=40))) == 40
    assert torch.allclose(few @ few.transpose(1, 2), torch.eye(3).expand(70, 3, 3), atol=1e-5)
