"""The aligner as its users see it."""

import math

import pytest
import torch
from simulated_category import SimulatedCategory

from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.geometry import rotation_angle


@pytest.fixture(scope="module")
def chair():
    torch.set_num_threads(1)
    category = SimulatedCategory("chair")
    return category, Aligner(category.model())


def keypoint_pck(alignment, image, alpha=0.1):
    rows, columns = image.evidence.mask.nonzero().unbind(1)
    longer = max(int(rows.max() - rows.min()), int(columns.max() - columns.min()))
    distance = (alignment.keypoints_2d - image.keypoints).norm(dim=-1)[image.visible]
    return float((distance < alpha * longer).float().mean())


def rotation_error(alignment, image):
    return math.degrees(float(rotation_angle(alignment.rotation, image.rotation)))


def test_unseen_instances_are_aligned(chair):
    category, aligner = chair
    images = [category.image(seed) for seed in range(40, 48)]
    alignments = [aligner.align(image.evidence) for image in images]
    assert all(rotation_error(a, i) < 30 for a, i in zip(alignments, images, strict=True))
    assert sum(keypoint_pck(a, i) for a, i in zip(alignments, images, strict=True)) / len(images) > 0.9


def test_the_reported_placement_is_consistent(chair):
    category, aligner = chair
    image = category.image(3)
    alignment = aligner.align(image.evidence)
    projected = alignment.camera.to_pixels(alignment.camera.project(alignment.keypoints_3d))
    assert torch.allclose(projected, alignment.keypoints_2d, atol=1e-2)
    rigid = alignment.scale * aligner.model.shape @ alignment.rotation.T + alignment.translation
    assert (rigid - alignment.keypoints_3d).norm(dim=-1).max() < 0.2 * alignment.scale
    assert alignment.scale_kind == "relative" and 0 <= alignment.confidence <= 1
