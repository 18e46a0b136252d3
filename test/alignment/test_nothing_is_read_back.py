"""Between the host's share of an image and its result nothing passes between host and device.

No value is read: on fake tensors, which have none, any reading fails. And no tensor is made of numbers, which the host would have to send.
"""

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.alignment.gauss_newton import native
from semalign3d_core.perception.evidence import DepthMap


class NothingIsUploaded(TorchFunctionMode):
    """Fails where a tensor is made of what the host knows."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        assert function not in (torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy), f"{function.__name__} makes a transfer"
        return function(*args, **(kwargs or {}))


def shapes(aligner, image, state=None):
    _, report = aligner.solve(image, state)
    return {name: tuple(value.shape) for name, value in vars(report).items() if isinstance(value, torch.Tensor)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["disparity", "metric", "no depth", "no mask"])
def test_no_value_is_read(chair, kind, monkeypatch):
    monkeypatch.setattr(native, "enabled", False)  # the steps in C are for processors alone
    category, aligner = chair
    evidence = category.image(3, metric=0.8 if kind == "metric" else None).evidence
    evidence = {"no depth": replace(evidence, depth=None), "no mask": replace(evidence, mask=None)}.get(kind, evidence)
    image, state = aligner.prepare(evidence), aligner.align(evidence).tracking
    expected = shapes(aligner, image), shapes(aligner, image, state)
    with FakeTensorMode(allow_non_fake_inputs=True), NothingIsUploaded():
        assert (shapes(aligner, image), shapes(aligner, image, state)) == expected


def test_reading_would_be_noticed():
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(Exception, match="_local_scalar_dense"):
        float(torch.ones(3).sum() * 2 > 1)


def test_an_upload_would_be_noticed():
    with NothingIsUploaded(), pytest.raises(AssertionError, match="transfer"):
        torch.ones(2) + torch.tensor([1.0, 2.0])


def test_double_precision(chair):
    category, aligner = chair
    evidence = category.image(5).evidence
    double = Aligner(aligner.model.to(dtype=torch.float64))
    single, exact = aligner.align(evidence), double.align(evidence)
    assert exact.keypoints_3d.dtype == torch.float64 and double.align(evidence, exact).tracking.warm_frames == 1
    assert (single.keypoints_2d - exact.keypoints_2d).norm(dim=-1).median() < 0.5
    metric = replace(evidence, depth=DepthMap(evidence.depth.values + 1, "metric"))
    assert double.align(metric).scale_kind == "metric"
