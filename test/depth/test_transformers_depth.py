"""Monocular depth on tiny random models of the same classes."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="needs the extra hf")

from semalign3d_core.depth.transformers_depth import TransformersDepth, depth_kind, load_depth
from semalign3d_core.errors import InputError
from semalign3d_core.evidence import ImageInput
from semalign3d_core.tiny_models import tiny_depth


def picture(height=53, width=37, seed=0):
    return ImageInput(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(53, 37), (1, 50), (64, 64)])
@pytest.mark.parametrize("kind, expected", [("relative", "disparity"), ("metric", "metric")])
def test_a_depth_map_of_the_image_s_size(size, kind, expected):
    found = TransformersDepth(tiny_depth(kind), "tiny", preprocessing={"size": {"height": 56, "width": 56}}).estimate(picture(*size))
    assert found.values.shape == size and found.values.dtype == torch.float32 and found.kind == expected
    assert torch.isfinite(found.values).all() and (found.values >= 0).all()


def test_the_input_keeps_its_shape_in_multiples_of_the_patch():
    model = TransformersDepth(tiny_depth(), "tiny")
    assert model.input_size(375, 500) == (518, 392)  # (width, height)
    assert model.input_size(518, 518) == (518, 518)
    assert model.input_size(500, 375) == (392, 518)
    stretched = TransformersDepth(tiny_depth(), "tiny", preprocessing={"keep_aspect_ratio": False, "size": {"height": 28, "width": 42}})
    assert stretched.input_size(375, 500) == (42, 28) and stretched.prepare(picture().rgb).shape == (3, 28, 42)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    options = {"preprocessing": {"size": {"height": 56, "width": 56}}}
    single = TransformersDepth(tiny_depth(), "tiny", **options).estimate(picture()).values
    half = TransformersDepth(tiny_depth(), "tiny", dtype=dtype, **options).estimate(picture()).values
    assert half.dtype == torch.float32
    assert (half - single).abs().max() < 0.05 * single.abs().max() + 1e-3


def test_models_that_do_not_say_what_they_measure_need_the_option():
    assert depth_kind(SimpleNamespace(model_type="zoedepth")) == "metric"
    assert depth_kind(SimpleNamespace(model_type="dpt")) == "disparity"
    with pytest.raises(InputError, match="kind=metric|depth|disparity"):
        depth_kind(SimpleNamespace(model_type="new_model"))
    assert TransformersDepth(tiny_depth(), "tiny", kind="depth").kind == "depth"
    with pytest.raises(InputError, match="unknown depth kind 'far'"):
        TransformersDepth(tiny_depth(), "tiny", kind="far")


def test_loading_from_a_folder_with_its_preprocessing(tmp_path):
    tiny_depth("metric").save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 56, "width": 56}, "image_mean": [0.5, 0.5, 0.5]}))
    loaded = load_depth("hf", str(tmp_path), device="cpu")
    assert loaded.kind == "metric" and loaded.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert loaded.estimate(picture()).values.shape == (53, 37)
