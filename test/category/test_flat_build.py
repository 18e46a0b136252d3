"""A category whose keypoints are coplanar, from rendered pictures to the stored model: every step of a build."""

import pytest
from category_folder import FAST

from semalign3d_core.calibration.build import build_category
from semalign3d_core.category.annotations.views import Providers
from semalign3d_core.cli import synth
from semalign3d_core.datasets import open_dataset
from semalign3d_core.perception import backbones, depth, masks


@pytest.mark.slow
def test_bottles_are_built_with_a_surface_before_their_outline(tmp_path):
    folder = tmp_path / "data"
    synth.run(synth.Options(folder, ("bottle",), train=12, val=0, test=0, pairs=12, seed=3, size=128, workers=1))
    dataset = open_dataset(folder)
    providers = Providers(backbones.create("compact"), depth.create("precomputed", folder), masks.create("precomputed", folder))
    model, report = build_category("bottle", dataset.keypoint_spec("bottle"), dataset.images("bottle", "trn"), providers, FAST)
    assert report["thickness"] > 0 and "handedness_evidence" not in report and not report["warnings"]
    assert model.surface.raised and len(model.dense_mu) > 20
    rises = model.offsets[:, None] * (model.surface @ model.shape - model.weights @ model.shape)
    assert rises.abs().amax() > 0.001
