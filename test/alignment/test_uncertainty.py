"""Covariances: of the size of the errors, positive, and open where the picture leaves something open."""

from dataclasses import replace

import torch

from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.alignment.uncertainty import uncertainty_of
from semalign3d_core.perception.evidence import DepthMap


def test_covariances_are_of_the_size_of_the_errors(chair):
    category, _ = chair
    aligner = Aligner(category.model(), known_diameter=0.2)
    ratios = []
    for seed in range(8):
        image = category.image(seed)
        alignment = aligner.align(image.evidence)
        found = uncertainty_of(aligner, image.evidence, alignment)
        assert found.pose.shape == (6, 6) and found.positions.shape[1:] == (3, 3) and found.pixels.shape[1:] == (2, 2)
        for matrices in (found.pose, *found.positions, *found.pixels):
            assert float((matrices - matrices.T).abs().max()) < 1e-4 and float(torch.linalg.eigvalsh(matrices).min()) > -1e-5
        error = (alignment.keypoints_2d - image.keypoints)[image.visible].abs().median()
        ratios.append(float(error / found.pixels.diagonal(dim1=1, dim2=2).sqrt()[image.visible].median()))
        assert float(found.pose[2, 2]) > float(found.pose[0, 0]), "distance is known least"
    assert 0.3 < float(torch.tensor(ratios).median()) < 4


def test_an_axis_that_is_not_determined_has_an_open_angle(chair):
    category, aligner = chair
    image = category.image(1)
    alignment = aligner.align(image.evidence)
    plain = uncertainty_of(aligner, image.evidence, alignment).pose
    axis = torch.tensor([0.0, 1.0, 0.0])
    turned = uncertainty_of(aligner, image.evidence, replace(alignment, undetermined_axis=axis)).pose
    seen = alignment.rotation @ axis
    assert float(seen @ (turned - plain)[3:, 3:] @ seen) > 3


def test_a_solver_without_normal_equations_says_nothing(chair):
    category, aligner = chair
    image = category.image(1)
    alignment = aligner.align(image.evidence)
    assert uncertainty_of(aligner, image.evidence, replace(alignment, tracking=None)) is None


def test_only_metric_depth_fixes_the_distance_of_an_object_of_known_size(chair):
    category, _ = chair
    aligner, image = Aligner(category.model(), known_diameter=0.2), category.image(1)
    alignment = aligner.align(image.evidence)
    values = torch.full_like(image.evidence.depth.values, 0.5)
    depths = (None, DepthMap(values, "disparity"), DepthMap(values, "metric"))
    without, relative, metric = (uncertainty_of(aligner, replace(image.evidence, depth=depth), alignment).pose for depth in depths)
    torch.testing.assert_close(relative, without)
    assert not torch.allclose(metric, without, rtol=0.01)
