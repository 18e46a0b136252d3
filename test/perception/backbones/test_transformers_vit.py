"""Vision transformers behind the backbone protocol, on tiny random models of the same classes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("transformers", reason="needs the extra hf")

import transformers
from tiny_models import TRANSFORMERS, tiny_transformer

from semalign3d_core.geometry.image_grid import CANVAS_SIDE, mirror_points
from semalign3d_core.perception.backbones.precision import choose_dtype
from semalign3d_core.perception.backbones.transformers_vit import TransformerBackbone, fix_positions, load_transformer
from semalign3d_core.perception.cached_providers import CachedBackbone
from semalign3d_core.perception.evidence import ImageInput, read_image
from semalign3d_core.runtime.cache import Cache
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingWeightsError

CELLS = 6


def picture(height=53, width=37, seed=0):
    return ImageInput(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def smooth_picture(height, width):
    rows, columns = np.mgrid[0:height, 0:width]
    channels = [np.sin(columns / 9 + k) + np.cos(rows / (7 + k)) for k in range(3)]
    return ImageInput((np.stack(channels, -1) * 60 + 128).astype(np.uint8))


def without_positions(family="dinov2"):
    """A model that does not know where its patches are: moving the patches moves its tokens."""
    model = tiny_transformer(family)
    model.embeddings.position_embeddings.data.zero_()
    return model


@pytest.mark.parametrize("family", TRANSFORMERS)
@pytest.mark.parametrize("size", [(53, 37), (1, 50), (64, 64)])
def test_unit_norm_features_on_the_canvas(family, size):
    backbone = TransformerBackbone(tiny_transformer(family), "tiny", CELLS)
    found = backbone.extract(picture(*size))
    assert found.values.shape == (backbone.channels, CELLS, CELLS) and found.values.dtype == torch.float32
    torch.testing.assert_close(found.values.norm(dim=0), torch.ones(CELLS, CELLS))
    assert (found.grid.height, found.grid.width, found.grid.padding) == (*size, "canvas")


def test_the_published_canvas_is_840_pixels_and_60_cells():
    backbone = TransformerBackbone(tiny_transformer("dinov2", layers=1, width=8), "tiny")
    assert backbone.prepare(picture().rgb).shape == (3, CANVAS_SIDE, CANVAS_SIDE)
    assert backbone.extract(picture()).values.shape == (8, 60, 60)


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_tokens_are_those_before_the_final_norm(family):
    model = tiny_transformer(family)
    backbone = TransformerBackbone(model, "tiny", CELLS)
    raw = backbone.raw([picture()])
    norm = getattr(model, "layernorm", None) or model.norm
    options = {"interpolate_pos_encoding": True} if family == "vit" else {}
    with torch.no_grad():
        output = model(pixel_values=backbone.prepare(picture().rgb)[None], **options).last_hidden_state
        again = norm(raw.flatten(2).transpose(1, 2))
    torch.testing.assert_close(again, output[:, -(CELLS**2) :], rtol=1e-4, atol=1e-5)


def test_a_batch_gives_what_single_images_give():
    backbone = TransformerBackbone(tiny_transformer(), "tiny", CELLS)
    images = [picture(seed=s, height=40 + s) for s in range(3)]
    for image, found in zip(images, backbone.extract_batch(images), strict=True):
        single = backbone.extract(image)
        torch.testing.assert_close(found.values, single.values, rtol=1e-4, atol=1e-5)
        assert found.grid == single.grid


def test_shifting_by_a_patch_shifts_the_map():
    backbone = TransformerBackbone(without_positions(), "tiny", CELLS)
    side = backbone.patch * CELLS
    image = picture(side, side)
    moved = ImageInput(np.roll(image.rgb, (backbone.patch, 2 * backbone.patch), axis=(0, 1)))
    expected = backbone.extract(image).values.roll((1, 2), dims=(1, 2))
    torch.testing.assert_close(backbone.extract(moved).values, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size, similar", [((84, 84), 0.9999), ((63, 84), 0.99), ((84, 60), 0.9999), ((53, 37), 0.9)])
def test_mirroring_mirrors_the_map(size, similar):
    model = without_positions()
    kernel = model.embeddings.patch_embeddings.projection.weight
    kernel.data = (kernel.data + kernel.data.flip(-1)) / 2
    backbone = TransformerBackbone(model, "tiny", CELLS)
    image = smooth_picture(*size)
    # an odd difference of canvas and image moves the mirror image by one canvas pixel, seen in the cells at its border
    same = backbone.extract(image.mirror()).values.flip(2)
    assert (same * backbone.extract(image).values).sum(0).min() > similar


def test_cells_and_pixels_of_the_mirror_image_agree():
    grid = TransformerBackbone(tiny_transformer(), "tiny", CELLS).grid(picture(53, 36))
    pixels = torch.tensor([[3.0, 5.0], [35.0, 52.0]])
    cells, mirrored = grid.pixel_to_cell(pixels), grid.pixel_to_cell(mirror_points(pixels, 36))
    torch.testing.assert_close(mirrored[:, 0], CELLS - 1 - cells[:, 0], atol=0.02, rtol=0)  # one canvas pixel is 0.007 cells


@pytest.mark.slow
def test_openvino_gives_what_pytorch_gives(tmp_path, monkeypatch):
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'semalign3d[fast]'")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    expected = TransformerBackbone(tiny_transformer(), "tiny", CELLS).extract(picture()).values
    found = TransformerBackbone(tiny_transformer(), "tiny", CELLS, runtime="openvino").extract(picture()).values
    assert (expected * found).sum(0).min() > 0.999


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_single_precision(dtype):
    single = TransformerBackbone(tiny_transformer(), "tiny", CELLS).extract(picture()).values
    half = TransformerBackbone(tiny_transformer(), "tiny", CELLS, dtype=dtype).extract(picture()).values
    assert half.dtype == torch.float32 and (single * half).sum(0).min() > 0.99


def test_features_can_be_used_under_autograd():
    values = TransformerBackbone(tiny_transformer(), "tiny", CELLS).extract(picture()).values
    weight = torch.ones(values.shape[0], requires_grad=True)
    torch.einsum("c,chw->", weight, values).backward()
    assert torch.isfinite(weight.grad).all()


def test_a_cache_hit_gives_what_was_computed(tmp_path):
    backbone = TransformerBackbone(tiny_transformer(), "tiny", CELLS)
    first = CachedBackbone(backbone, "vit:tiny", Cache(tmp_path)).extract(picture())
    cache = Cache(tmp_path)
    second = CachedBackbone(backbone, "vit:tiny", cache).extract(picture())
    assert cache.counts["features_hits"] == 1 and torch.equal(first.values, second.values) and first.grid == second.grid
    assert (first.values * backbone.extract(picture()).values).sum(0).min() > 0.999


def save(folder, name, array, mode=None, **options):
    path = folder / name
    Image.fromarray(array, mode).save(path, **options) if mode else Image.fromarray(array).save(path, **options)
    return path


def test_pictures_of_other_modes_give_the_features_of_what_they_show(tmp_path):
    backbone = TransformerBackbone(tiny_transformer(), "tiny", CELLS)
    grey = np.random.default_rng(1).integers(0, 256, (41, 30), dtype=np.uint8)
    expected = backbone.extract(ImageInput(np.repeat(grey[:, :, None], 3, 2))).values
    opaque = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees: shown clockwise
    turned = save(tmp_path, "turned.png", np.ascontiguousarray(np.rot90(grey)), exif=exif)
    paths = [
        save(tmp_path, "grey.png", grey),
        save(tmp_path, "rgba.png", opaque),
        save(tmp_path, "sixteen.png", grey.astype(np.uint16) * 257),
        turned,
    ]
    for path in paths:
        torch.testing.assert_close(backbone.extract(read_image(path)).values, expected, msg=str(path.name))


def test_positions_are_sampled_as_in_the_original_release():
    model = tiny_transformer()
    stored = model.embeddings.position_embeddings.detach().clone()  # 5 x 5
    fix_positions(model, 10)
    fixed = model.embeddings.position_embeddings.detach()[:, 1:].reshape(10, 10, -1)
    assert model.embeddings.position_embeddings.shape == (1, 101, 24)
    grid = stored[:, 1:].reshape(1, 5, 5, -1).permute(0, 3, 1, 2)
    # the position of cell (c + 0.5) / scale - 0.5 with scale 10.1 / 5 instead of 10 / 5
    exact = torch.nn.functional.interpolate(grid, size=(10, 10), mode="bicubic", align_corners=False)[0].permute(1, 2, 0)
    assert 1e-4 < (fixed - exact).abs().max() < 0.5
    torch.testing.assert_close(model.embeddings.position_embeddings[:, 0], stored[:, 0])


def test_models_with_registers_keep_the_way_of_sampling_of_their_own_release():
    model = tiny_transformer("dinov2_with_registers")
    stored = model.embeddings.position_embeddings
    fix_positions(model, 10)
    assert model.embeddings.position_embeddings is stored


SHAPE = {"hidden_size": 24, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64, "patch_size": 16}
TEXT = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}


def other_vision_models():
    """One model of each other family, as their repositories hold them: with a text model beside it, or alone."""
    t = transformers
    return {
        "clip": lambda: t.CLIPModel(t.CLIPConfig(vision_config=SHAPE, text_config=TEXT)),
        "siglip": lambda: t.SiglipModel(t.SiglipConfig(vision_config=SHAPE, text_config=TEXT)),
        "deit": lambda: t.DeiTModel(t.DeiTConfig(**SHAPE)),
        "clip_vision": lambda: t.CLIPVisionModel(t.CLIPVisionConfig(**SHAPE)),
    }


@pytest.mark.parametrize("family", ["clip", "siglip", "deit", "clip_vision"])
def test_any_vision_transformer_of_the_library(tmp_path, family):
    torch.manual_seed(0)
    model = other_vision_models()[family]().eval()
    model.save_pretrained(tmp_path)
    backbone = load_transformer("vit", str(tmp_path), side="96", device="cpu")
    found = backbone.raw([picture()])
    assert found.shape == (1, 24, 6, 6)
    # what the whole model gives is what its blocks give (CLIP), or that through the final norm
    vision = getattr(model, "vision_model", model)
    norm = getattr(vision, "layernorm", None) or vision.post_layernorm
    with torch.no_grad():
        output = vision(pixel_values=backbone.prepare(picture().rgb)[None], interpolate_pos_encoding=True).last_hidden_state[:, -36:]
        tokens = found.flatten(2).transpose(1, 2)
        candidates = (tokens, norm(tokens))
    assert any(torch.allclose(output, candidate, atol=1e-5) for candidate in candidates)


def test_models_without_a_token_per_patch_are_refused():
    config = transformers.SwinConfig(image_size=96, patch_size=16, embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=3)
    with pytest.raises(InputError, match="does not give one token per patch"):
        TransformerBackbone(transformers.SwinModel(config), "tiny", CELLS).extract(picture())


@pytest.mark.parametrize(
    "kind, device, expected",
    [
        ("dinov2", "cuda", torch.float16),
        ("dinov3_vit", "cuda", torch.float32),  # by its authors not made for float16
        ("somebody_s", "cuda", torch.float32),
        ("dinov2", "cpu", torch.float32),
    ],
)
def test_half_precision_only_where_it_is_safe(kind, device, expected):
    assert choose_dtype(None, torch.device(device), kind) == expected
    assert choose_dtype("bfloat16", torch.device(device), kind) == torch.bfloat16


def test_numbers_beyond_half_precision_are_reported_with_what_to_do():
    model = tiny_transformer()
    model.encoder.layer[-1].layer_scale2.lambda1.data.fill_(1e9)
    with pytest.raises(InputError, match="NaN or infinity in float16; choose another number format: add ,dtype=float32"):
        TransformerBackbone(model, "tiny", CELLS, dtype=torch.float16).extract(picture())


def test_a_checkpoint_that_lacks_a_layer_is_refused_by_name(tmp_path):
    tiny_transformer().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"num_hidden_layers": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileFormatError, match=r"missing encoder\.layer\.2.*and 13 more; get it again"):
        load_transformer("vit", str(tmp_path))


def test_loading_from_a_folder(tmp_path):
    tiny_transformer().save_pretrained(tmp_path / "model")
    loaded = load_transformer("vit", str(tmp_path / "model"), side="84", device="cpu")
    with pytest.raises(InputError, match="multiple of 14 pixels"):
        load_transformer("vit", str(tmp_path / "model"), side="100", device="cpu")
    expected = TransformerBackbone(tiny_transformer(), "x", CELLS).extract(picture()).values
    torch.testing.assert_close(loaded.extract(picture()).values, expected)
    assert loaded.name.startswith("dinov2-24@") and loaded.name.endswith("-6")


def test_a_folder_without_weights_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileFormatError, match=str(tmp_path)):
        load_transformer("vit", str(tmp_path))


def test_missing_weights_come_with_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MissingWeightsError, match="hf download owner/no-such-model --revision abc"):
        load_transformer("vit", "owner/no-such-model", revision="abc")
