"""Monocular depth on tiny random models of the same classes."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="needs the extra hf")

import transformers
from tiny_models import tiny_depth

from semalign3d_core.perception import depth
from semalign3d_core.perception.cached_providers import CachedDepth
from semalign3d_core.perception.depth.transformers_depth import TransformersDepth, depth_anything_processor, depth_kind, load_depth
from semalign3d_core.perception.evidence import ImageInput
from semalign3d_core.runtime.cache import Cache
from semalign3d_core.runtime.errors import FileFormatError, InputError

# preprocessor_config.json as the published checkpoints have it, for a smaller input
PUBLISHED = {
    "do_normalize": True,
    "do_pad": False,
    "do_rescale": True,
    "do_resize": True,
    "ensure_multiple_of": 14,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "image_processor_type": "DPTImageProcessor",
    "keep_aspect_ratio": True,
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 70, "width": 70},
}


def picture(height=53, width=37, seed=0):
    return ImageInput(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def smooth_picture(height, width, phase=0.0):
    rows, columns = np.mgrid[0:height, 0:width]
    grey = np.sin((columns - phase) / 9) + np.cos(rows / 7)
    return ImageInput(np.repeat((grey * 60 + 128).astype(np.uint8)[..., None], 3, 2))


def small(kind="relative", **options):
    return TransformersDepth(tiny_depth(kind), "tiny", processor=depth_anything_processor(56), **options)


@pytest.mark.parametrize("size", [(53, 37), (1, 50), (700, 2), (64, 64)])
@pytest.mark.parametrize("kind, expected", [("relative", "disparity"), ("metric", "metric")])
def test_a_depth_map_of_the_image_s_size(size, kind, expected):
    found = small(kind).estimate(picture(*size))
    assert found.values.shape == size and found.values.dtype == torch.float32 and found.kind == expected
    assert torch.isfinite(found.values).all() and (found.values >= 0).all()


@pytest.mark.parametrize("height, width, expected", [(375, 500, (392, 518)), (518, 518, (518, 518)), (500, 375, (518, 392))])
def test_the_input_keeps_its_shape_in_multiples_of_the_patch(height, width, expected):
    pixels = depth_anything_processor()(images=picture(height, width).rgb, return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, *expected)
    # mean and standard deviation of ImageNet: white of the red channel
    white = depth_anything_processor()(images=np.full((30, 30, 3), 255, np.uint8), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(white[0, 0].mean(), torch.tensor((1 - 0.485) / 0.229), rtol=1e-4, atol=1e-4)


class Brightness(torch.nn.Module):
    """Stands where the network is: the nearer the brighter, so that the way in and out can be checked for itself."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(model_type="depth_anything", depth_estimation_type="relative")

    def forward(self, pixel_values):
        return SimpleNamespace(predicted_depth=pixel_values[:, 0])


def brightness():
    return TransformersDepth(Brightness(), "stub", processor=depth_anything_processor(140))


@pytest.mark.parametrize("size", [(53, 37), (120, 161), (64, 64)])
def test_depth_stands_where_its_pixels_are(size):
    image = smooth_picture(*size)
    expected = (torch.from_numpy(image.rgb[..., 0].astype(np.float32)) / 255 - 0.485) / 0.229
    torch.testing.assert_close(brightness().estimate(image).values, expected, atol=0.1, rtol=0)


@pytest.mark.parametrize("size", [(53, 37), (120, 161)])
def test_shifting_and_mirroring_the_image_shifts_and_mirrors_the_map(size):
    model, image = brightness(), smooth_picture(*size)
    torch.testing.assert_close(model.estimate(image.mirror()).values.flip(1), model.estimate(image).values, atol=0.02, rtol=0)
    moved = model.estimate(smooth_picture(*size, phase=5)).values
    torch.testing.assert_close(moved[:, 7:-2], model.estimate(image).values[:, 2:-7], atol=0.1, rtol=0)


def test_a_network_that_treats_both_sides_alike_mirrors_the_map():
    model = tiny_depth()
    model.backbone.embeddings.position_embeddings.data.zero_()
    for parameter in model.parameters():
        if parameter.ndim == 4:  # kernels
            parameter.data = (parameter.data + parameter.data.flip(-1)) / 2
    provider = TransformersDepth(model, "tiny", processor=depth_anything_processor(70))  # odd numbers of patches have a middle
    image = smooth_picture(140, 140)
    found = provider.estimate(image).values
    assert found.std() > 0
    torch.testing.assert_close(provider.estimate(image.mirror()).values.flip(1), found, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    single = small().estimate(picture()).values
    half = small(dtype=dtype).estimate(picture()).values
    assert half.dtype == torch.float32
    assert (half - single).abs().max() < 0.03 * single.abs().max() and single.abs().max() > 0.1


def test_numbers_beyond_half_precision_are_reported_with_what_to_do():
    model = tiny_depth()
    model.head.conv3.bias.data.fill_(1e9)
    with pytest.raises(InputError, match=r"NaN or infinity in float16; choose another number format: add ,dtype=float32"):
        TransformersDepth(model, "tiny", processor=depth_anything_processor(56), dtype=torch.float16).estimate(picture())


def test_models_that_do_not_say_what_they_measure_need_the_option():
    assert depth_kind(SimpleNamespace(model_type="zoedepth")) == "metric"
    assert depth_kind(SimpleNamespace(model_type="dpt")) == "disparity"
    dinov2 = SimpleNamespace(model_type="dinov2")
    for config in (SimpleNamespace(model_type="new_model"), SimpleNamespace(model_type="dpt", backbone_config=dinov2)):
        with pytest.raises(InputError, match=r"kind=metric\|depth\|disparity"):
            depth_kind(config)
    assert TransformersDepth(tiny_depth(), "tiny", kind="depth").kind == "depth"
    with pytest.raises(InputError, match="unknown depth kind 'far'"):
        TransformersDepth(tiny_depth(), "tiny", kind="far")


def test_loading_from_a_folder_with_its_published_preprocessing(tmp_path):
    tiny_depth("metric").save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PUBLISHED))
    loaded = load_depth("hf", str(tmp_path), device="cpu")
    expected = TransformersDepth(tiny_depth("metric"), "tiny", processor=depth_anything_processor(70)).estimate(picture())
    assert loaded.kind == "metric"
    torch.testing.assert_close(loaded.estimate(picture()).values, expected.values)


def save_other_model(folder, family):
    """A tiny model of another family, with its image processor."""
    if family == "dpt":
        shape = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 64}
        head = {"backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8}
        config = transformers.DPTConfig(**shape, **head)
        preprocessing = {"image_processor_type": "DPTImageProcessor", "size": {"height": 64, "width": 64}}
    else:
        stages = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1, 1, 2, 2]}
        config = transformers.GLPNConfig(**stages, decoder_hidden_size=8)
        preprocessing = {"image_processor_type": "GLPNImageProcessor", "size_divisor": 32}
    transformers.AutoModelForDepthEstimation.from_config(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))


@pytest.mark.parametrize("family, kind", [("dpt", "disparity"), ("glpn", "metric")])
@pytest.mark.parametrize("size", [(53, 37), (20, 90)])
def test_any_depth_model_of_the_library(tmp_path, family, kind, size):
    save_other_model(tmp_path, family)
    found = depth.create(f"hf:{tmp_path},device=cpu").estimate(picture(*size))
    assert found.values.shape == size and found.kind == kind and torch.isfinite(found.values).all()


def test_a_checkpoint_that_lacks_a_tensor_is_refused_by_name(tmp_path):
    tiny_depth().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["backbone_config"]["num_hidden_layers"] = 5
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileFormatError, match=r"is no complete depth model: missing backbone\.encoder\.layer\.4"):
        load_depth("hf", str(tmp_path), device="cpu")


def test_a_cache_hit_gives_what_was_computed(tmp_path):
    first = CachedDepth(small(), "depth:tiny", Cache(tmp_path)).estimate(picture())
    cache = Cache(tmp_path)
    second = CachedDepth(small(), "depth:tiny", cache).estimate(picture())
    assert cache.counts["depth_hits"] == 1 and torch.equal(first.values, second.values) and first.kind == second.kind
    torch.testing.assert_close(first.values, small().estimate(picture()).values, rtol=2e-3, atol=1e-3)  # kept in half precision
