"""Depth of one camera carried over to another."""

import numpy as np
import torch

from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.geometry.registration import register_depth


def test_a_plane_in_front_of_a_wall_appears_where_the_other_camera_sees_it():
    source = PinholeCamera.from_pixels([[150.0, 0, 79.5], [0, 150, 59.5], [0, 0, 1]], 120, 160)
    target = PinholeCamera.from_pixels([[400.0, 0, 159.5], [0, 400, 119.5], [0, 0, 1]], 240, 320)
    depth = torch.full((120, 160), 2.0)
    depth[50:70, 70:90] = 1.0
    transform = np.eye(4)
    transform[0, 3] = -0.05  # the other camera stands 5 cm to the right
    found = register_depth(depth, source, target, transform)
    assert found.isfinite().float().mean() > 0.99
    # the square spans x = (70 - 79.5) / 150 ... at 1 m; seen 0.05 m further to the left
    left, right = 400 * ((69.5 - 79.5) / 150 - 0.05) + 159.5, 400 * ((89.5 - 79.5) / 150 - 0.05) + 159.5
    row = found[119]
    near = torch.nonzero(row < 1.5).flatten()
    assert abs(float(near.min()) - left) < 3 and abs(float(near.max()) - right) < 3
    assert float(row[near].max()) == 1.0 and float(row[int(right) + 30]) == 2.0


def test_nothing_behind_the_other_camera_is_seen():
    camera = PinholeCamera.centred(1.0, 20, 20, known=True)
    transform = np.eye(4)
    transform[2, 3] = -3.0
    assert not register_depth(torch.full((20, 20), 2.0), camera, camera, transform).isfinite().any()
