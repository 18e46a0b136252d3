"""Video: warm starts, cuts, and the way back."""

from dataclasses import replace

import torch
from alignment_scores import keypoint_pck, mean, rotation_error

from semalign3d_core.alignment.result import last_seen


def orbit(category, seed, start, count, step=6.0):
    return [category.image(seed, view=(start + step * n, 15.0, 0.0)) for n in range(count)]


def follow(aligner, images):
    alignments, previous = [], None
    for image in images:
        previous = aligner.align(image.evidence, previous)
        alignments.append(previous)
    return alignments


def test_an_orbit_is_followed_by_warm_starts(chair):
    category, aligner = chair
    images = orbit(category, 5, 20.0, 8)
    alignments = follow(aligner, images)
    assert sum(a.tracking.warm_frames > 0 for a in alignments) >= 6
    assert all(rotation_error(a, i) < 30 for a, i in zip(alignments, images, strict=True))
    assert mean(keypoint_pck(a, i) for a, i in zip(alignments, images, strict=True)) > 0.9


def test_a_sequence_recovers_from_cuts(chair):
    category, aligner = chair
    images = orbit(category, 5, 20.0, 3) + orbit(category, 5, 170.0, 3) + orbit(category, 7, 260.0, 3)
    alignments = follow(aligner, images)
    assert all(rotation_error(a, i) < 30 for a, i in zip(alignments, images, strict=True))


def test_a_wrong_pose_does_not_survive(chair):
    """Even a previous alignment that is confidently wrong is left behind."""
    category, aligner = chair
    first, second = category.image(5, view=(30.0, 15.0, 0.0)), category.image(5, view=(150.0, 15.0, 0.0))
    wrong = aligner.align(second.evidence)
    assert rotation_error(aligner.align(first.evidence, wrong), first) < 30


def test_a_long_sequence_asks_the_bank_again(chair):
    category, aligner = chair
    image = category.image(5)
    alignments = follow(aligner, [image] * 18)
    assert sum(a.tracking.warm_frames == 0 for a in alignments) >= 2


def test_warm_start_reproduces_the_alignment(chair):
    category, aligner = chair
    evidence = category.image(5).evidence
    cold = aligner.align(evidence)
    warm = aligner.align(evidence, cold)
    assert warm.tracking.warm_frames == 1
    assert torch.allclose(warm.keypoints_2d, cold.keypoints_2d, atol=4.0)


def test_an_alignment_of_another_model_or_without_state_is_no_start(chair, monitor):
    (category, aligner), (_, other) = chair, monitor
    evidence = category.image(5).evidence
    cold = aligner.align(evidence)
    for previous in (
        other.align(evidence),
        replace(cold, model_hash="of another model"),
        replace(cold, tracking=None),
        replace(cold, found=False),
    ):
        alignment = aligner.align(evidence, previous)
        assert alignment.tracking.warm_frames == 0 and torch.equal(alignment.keypoints_2d, cold.keypoints_2d)
    assert last_seen(replace(cold, tracking=None), aligner.model_hash, 240) is None
    assert last_seen(cold, other.model_hash, 240) is None and last_seen(cold, aligner.model_hash, 240) is not None
