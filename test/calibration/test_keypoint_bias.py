"""Where keypoints are annotated beside where features look like them."""

from dataclasses import replace

import pytest
import torch

from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.alignment.judgement import Calibration, with_keypoint_bias
from semalign3d_core.calibration.keypoint_bias import estimated_keypoint_bias, pixels_with_bias, stored_keypoint_bias
from semalign3d_core.geometry.rotations import similarity_alignment, uniform_rotations


@pytest.fixture(scope="module")
def aligned(chair):
    category, aligner = chair
    images = [category.image(seed) for seed in range(100, 112)]
    return category, aligner, images, [aligner.align(image.evidence) for image in images]


def shown(alignment, bias):
    """Pixels of keypoints that are moved by bias (K, 3) in the object frame."""
    moved = alignment.keypoints_3d + alignment.scale * bias @ alignment.rotation.T
    return alignment.camera.to_pixels(alignment.camera.project(moved))


@pytest.mark.slow
def test_offsets_are_recovered_from_annotations(aligned):
    _, aligner, _, alignments = aligned
    flip = torch.tensor(aligner.model.flip_permutation)
    truth = 0.05 * torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    truth = (truth + truth[flip] * torch.tensor([-1.0, 1.0, 1.0])) / 2  # as mirror partners must be
    annotations = torch.stack([shown(alignment, truth) for alignment in alignments])
    annotations[::3, 4] = torch.nan
    found = estimated_keypoint_bias(aligner.model, alignments, annotations)
    assert (found - truth).norm(dim=1).max() < 0.35 * truth.norm(dim=1).max()  # pulled towards none
    assert torch.nn.functional.cosine_similarity(found.flatten(), truth.flatten(), dim=0) > 0.97


@pytest.mark.slow
def test_a_wrong_alignment_teaches_nothing(aligned):
    _, aligner, _, alignments = aligned
    annotations = torch.stack([alignment.keypoints_2d.flip(0) + 40 for alignment in alignments])
    assert not estimated_keypoint_bias(aligner.model, alignments, annotations).any()
    assert not estimated_keypoint_bias(aligner.model, alignments, torch.full((12, 10, 2), torch.nan)).any()


def test_offsets_turn_and_grow_with_the_object():
    generator = torch.Generator().manual_seed(1)
    shape, bias, rotation = torch.randn(6, 3, generator=generator), 0.1 * torch.randn(6, 3, generator=generator), uniform_rotations(7)[4]
    placed = 1.7 * shape @ rotation.T + torch.tensor([0.3, -0.2, 4.0])
    moved = with_keypoint_bias(placed[None], rotation[None], shape, bias)[0]
    assert torch.allclose(moved, 1.7 * (shape + bias) @ rotation.T + torch.tensor([0.3, -0.2, 4.0]), atol=1e-5)
    assert with_keypoint_bias(placed[None], rotation[None], shape, None)[0] is not None


def test_reported_keypoints_carry_the_offsets_of_the_calibration(aligned):
    _, aligner, images, alignments = aligned
    bias = torch.zeros(10, 3)
    bias[2] = torch.tensor([0.1, 0.0, -0.05])
    stored = stored_keypoint_bias(bias)
    assert torch.allclose(Calibration.of(stored, aligner.category).keypoint_bias, bias)
    model = replace(aligner.model, calibration=stored)
    found, before = Aligner(model).align(images[0].evidence), alignments[0]
    rotation = similarity_alignment(model.shape, before.keypoints_3d)[1]
    moved = (found.keypoints_3d - before.keypoints_3d) / before.scale @ rotation
    assert torch.allclose(moved, bias, atol=0.01)
    published = Aligner(model, replace(aligner.config, keypoint_bias=False)).align(images[0].evidence)
    assert torch.allclose(published.keypoints_3d, before.keypoints_3d, atol=1e-6)


def test_candidates_of_an_alignment_without_offsets_are_moved_as_one_with_offsets_has_them(aligned):
    _, aligner, images, alignments = aligned
    bias = 0.05 * torch.randn(10, 3, generator=torch.Generator().manual_seed(3))
    expected = Aligner(replace(aligner.model, calibration=stored_keypoint_bias(bias))).align(images[0].evidence).alternatives.keypoints_2d
    before = alignments[0].alternatives.keypoints_2d
    found = pixels_with_bias(alignments[0].alternatives, alignments[0].camera, aligner.model, bias)
    assert torch.allclose(found, expected, atol=1e-2) and (expected - before).norm(dim=-1).mean() > 1


def test_the_next_frame_starts_from_the_pose_without_offsets(aligned):
    _, aligner, images, _ = aligned
    stored = stored_keypoint_bias(torch.full((10, 3), 0.03))
    moved = Aligner(replace(aligner.model, calibration=stored))
    first = moved.align(images[1].evidence)
    for name in ("rotation", "parameters", "log_focal"):
        assert torch.equal(getattr(first.tracking, name), getattr(aligner.align(images[1].evidence).tracking, name)), name
    warm = moved.align(images[1].evidence, first)
    assert warm.tracking.warm_frames == 1 and (warm.keypoints_2d - first.keypoints_2d).norm(dim=1).median() < 4
