"""What only a GPU can show: the same results as on a CPU, without the host waiting in between."""

from dataclasses import replace

import pytest
import torch

from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.calibration.confidence_maps import calibrate
from semalign3d_core.matchers import MATCHERS
from semalign3d_core.pipeline import PipelineConfig, create_pipeline

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module")
def aligners(model):
    return Aligner(model), Aligner(model.to("cuda"))


def on_gpu(evidence):
    """The evidence with its features and its mask there, as an evaluation has it."""
    return replace(evidence, features=replace(evidence.features, values=evidence.features.values.cuda()), mask=evidence.mask.cuda())


@pytest.mark.parametrize("known", ["everything", "no mask", "no depth"])
def test_alignments_agree_with_the_cpu(category, aligners, known):
    differences = []
    for seed in range(8):
        evidence = category.image(seed).evidence
        evidence = {"no mask": replace(evidence, mask=None), "no depth": replace(evidence, depth=None)}.get(known, evidence)
        expected, found = (aligner.align(evidence) for aligner in aligners)
        differences.append((found.keypoints_2d - expected.keypoints_2d).norm(dim=-1).median())
        assert found.confidence == pytest.approx(expected.confidence, abs=0.05)
        assert all(value.device.type == "cpu" for value in (found.keypoints_3d, found.rotation, found.cloud_3d))


def test_a_warm_start_agrees_with_the_cpu(category, aligners):
    evidence = category.image(5).evidence
    expected, found = (aligner.align(evidence, aligner.align(evidence)) for aligner in aligners)
    assert expected.tracking.warm_frames == found.tracking.warm_frames == 1
    assert (found.keypoints_2d - expected.keypoints_2d).norm(dim=-1).median() < 0.5


def test_the_host_never_waits_inside(category, aligners):
    aligner = aligners[1]
    evidence = category.image(2).evidence
    image, state = aligner.prepare(evidence), aligner.align(evidence).tracking
    aligner.solve(image, state)  # libraries set themselves up
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        aligner.solve(image), aligner.solve(image, state)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_transfer_agrees_with_the_cpu(category):
    model = category.model()
    first, second = category.image(1), category.image(2)
    points = first.keypoints[torch.isfinite(first.keypoints).all(-1)]
    expected = MATCHERS["semalign3d"](model=model).match(first.evidence, second.evidence, points)
    found = MATCHERS["semalign3d"](model=model.to("cuda")).match(on_gpu(first.evidence), on_gpu(second.evidence), points.cuda())
    assert (found.points.cpu() - expected.points).norm(dim=-1).median() < 0.5


def test_the_pipeline_takes_the_gpu():
    assert create_pipeline(PipelineConfig(category="chair")).aligner.category.shape.is_cuda


def test_the_calibration_agrees_with_the_cpu(category):
    model, images = category.model(), [category.image(seed) for seed in range(300, 306)]
    keypoints = torch.stack([torch.where(i.visible[:, None], i.keypoints, torch.nan) for i in images])
    evidences, rotations = [i.evidence for i in images], torch.stack([i.rotation for i in images])
    expected, found = (calibrate(m, evidences, keypoints, truth_rotations=rotations) for m in (model, model.to("cuda")))
    assert expected.keys() == found.keys()
    assert max(abs(expected[name] - found[name]) for name in expected if name.startswith("offset")) < 0.01
