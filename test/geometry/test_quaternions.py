"""Quaternions and rotation vectors of rotation matrices, beside SciPy's."""

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from semalign3d_core.geometry.rotations import quaternion, rotation_from_quaternion, rotation_from_vector, rotation_vector


def test_quaternions_are_those_of_scipy_whatever_the_turn():
    turns = Rotation.random(200, random_state=0).as_matrix()
    half = Rotation.from_rotvec(np.pi * np.concatenate([np.eye(3), [[0.6, 0.8, 0], [0, -0.6, 0.8]]])).as_matrix()
    for matrix in (*turns, *half, np.eye(3)):
        found, expected = quaternion(torch.from_numpy(matrix)), Rotation.from_matrix(matrix).as_quat()
        assert found[3] >= 0 and abs(found @ expected) > 1 - 1e-9
        torch.testing.assert_close(rotation_from_quaternion(torch.from_numpy(found)), torch.from_numpy(matrix), atol=1e-9, rtol=0)


def test_rotation_vectors_are_the_inverse_of_rotations():
    generator = torch.Generator().manual_seed(0)
    for length in (0.0, 1e-9, 1e-4, 0.3, 3.0):
        vector = length * torch.nn.functional.normalize(torch.randn(3, generator=generator, dtype=torch.float64), dim=0)
        torch.testing.assert_close(rotation_vector(rotation_from_vector(vector)), vector, atol=1e-9, rtol=0)
