"""Between the host's share of an image and its result nothing passes between host and device.

No value is read: on fake tensors, which have none, any reading fails. And no tensor is made of numbers, which a captured graph cannot do.
"""

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.alignment.outcome import packed
from semalign3d_core.alignment.report import read_back
from semalign3d_core.perception.evidence import DepthMap


class NothingIsUploaded(TorchFunctionMode):
    """Fails where a tensor is made of what the host knows."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        assert function not in (torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy), f"{function.__name__} makes a transfer"
        return function(*args, **(kwargs or {}))


def outcome_shapes(aligner, image, state=None):
    with FakeTensorMode(allow_non_fake_inputs=True), NothingIsUploaded():
        return {name: tuple(value.shape) for name, value in aligner._outcome(image, state).items()}


@pytest.mark.parametrize("kind", ["disparity", "metric", "no depth", "no mask"])
def test_no_value_is_read(chair, kind):
    category, aligner = chair
    evidence = category.image(3, metric=0.8 if kind == "metric" else None).evidence
    evidence = {"no depth": replace(evidence, depth=None), "no mask": replace(evidence, mask=None)}.get(kind, evidence)
    image = aligner.prepare(evidence)
    real = aligner._outcome(image)
    assert outcome_shapes(aligner, image) == {name: tuple(value.shape) for name, value in real.items()}
    warm = aligner._outcome(image, real["state"])
    assert outcome_shapes(aligner, image, real["state"]) == {name: tuple(value.shape) for name, value in warm.items()}


def test_one_transfer_brings_the_same_outcome(chair):
    """On a GPU all that is read comes in one tensor."""
    category, aligner = chair
    outcome = aligner._outcome(aligner.prepare(category.image(3).evidence))
    separately, together = read_back(outcome), read_back(packed(outcome))
    assert separately.keys() == together.keys()
    for name, value in separately.items():
        torch.testing.assert_close(together[name], value, rtol=0, atol=0, equal_nan=True)


def test_reading_would_be_noticed():
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(Exception, match="_local_scalar_dense"):
        float(torch.ones(3).sum() * 2 > 1)


def test_an_upload_would_be_noticed():
    with NothingIsUploaded(), pytest.raises(AssertionError, match="transfer"):
        torch.ones(2) + torch.tensor([1.0, 2.0])


def test_results_do_not_depend_on_how_much_of_the_picture_is_computed(chair):
    """On a GPU the whole picture is computed: what lies far from the mask must not count."""
    category, aligner = chair
    for seed in range(5, 9):
        evidence = category.image(seed).evidence
        image, whole = aligner.prepare(evidence), aligner.prepare(evidence, whole=True)
        assert whole.coverage.numel() > image.coverage.numel()
        observations = aligner.observe(image), aligner.observe(whole)
        for name in ("spread", "pixels", "pixel_log", "size"):
            assert torch.allclose(*(getattr(observation, name) for observation in observations), atol=1e-5), name
        best = [observation.keypoint_log.sort(1).values for observation in observations]
        assert torch.allclose(*best, atol=1e-4)
        cropped, full = aligner._outcome(image), aligner._outcome(whole)
        # Rounding differs, and an argmax that flips by it moves the solution a little.
        assert (cropped["projected"] - full["projected"]).norm(dim=-1).median() < 0.5 / 240
        assert torch.allclose(cropped["belief"], full["belief"], atol=0.05)


def test_double_precision(chair):
    category, aligner = chair
    evidence = category.image(5).evidence
    double = Aligner(aligner.model.to(dtype=torch.float64))
    single, exact = aligner.align(evidence), double.align(evidence)
    assert exact.keypoints_3d.dtype == torch.float64 and double.align(evidence, exact).diagnostics["warm_frames"] == 1
    assert (single.keypoints_2d - exact.keypoints_2d).norm(dim=-1).median() < 0.5
    metric = replace(evidence, depth=DepthMap(evidence.depth.values + 1, "metric"))
    assert double.align(metric).scale_kind == "metric"
