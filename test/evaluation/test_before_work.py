"""What is missing is said before there is any work: weights, before the pairs are even read."""

import pytest
from tiny_dataset import make_dataset

from semalign3d_core.evaluation.run import runner
from semalign3d_core.evaluation.run.config import EvaluationConfig
from semalign3d_core.evaluation.run.runner import evaluate
from semalign3d_core.perception import backbones, masks
from semalign3d_core.runtime.errors import MissingWeightsError


def missing(argument, device=None):
    raise MissingWeightsError("the weights are not on this machine")


@pytest.mark.parametrize("workers", [1, 2])
def test_missing_weights_of_the_backbone_end_the_run_before_pairs_are_read(tmp_path, monkeypatch, workers):
    folder = make_dataset(tmp_path / "data")
    monkeypatch.setattr(runner, "read_pairs", lambda *arguments: pytest.fail("pairs were read first"))
    if workers == 1:
        monkeypatch.setitem(backbones.BACKBONES, "absent", missing)
        spec, text = "absent", "not on this machine"
    else:  # in a process of its own, which knows no patched registry
        spec, text = f"dinov2:{tmp_path / 'nowhere'}", "nowhere does not exist"
    with pytest.raises(MissingWeightsError, match=text):
        evaluate(EvaluationConfig(folder, tmp_path / "out", backbone=spec, workers=workers, gallery=0))


def test_missing_weights_of_masks_end_the_run_before_images_are_looked_at(tmp_path, monkeypatch):
    folder = make_dataset(tmp_path / "data")
    monkeypatch.setitem(masks.MASKS, "absent", missing)
    monkeypatch.setattr(runner, "image_items", lambda pairs: pytest.fail("work was listed first"))
    with pytest.raises(MissingWeightsError, match="not on this machine"):
        evaluate(EvaluationConfig(folder, tmp_path / "out", backbone="precomputed:sim", masks="absent", gallery=0))
