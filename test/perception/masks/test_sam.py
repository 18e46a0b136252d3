"""SAM and SAM 2 on tiny random models of the same classes."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="needs the extra hf")

import transformers
from tiny_models import tiny_sam, tiny_sam2

from semalign3d_core.perception.cached_providers import CachedMasks
from semalign3d_core.perception.evidence import ImageInput
from semalign3d_core.perception.masks import MaskSource
from semalign3d_core.perception.masks.sam import SamMasks, load_sam
from semalign3d_core.runtime.cache import Cache
from semalign3d_core.runtime.errors import FileFormatError, InputError

MODELS = {"sam": tiny_sam, "sam2": tiny_sam2}
PROMPTS = ({"box": (5, 5, 30, 40)}, {"points": [[10, 10], [20, 30]]}, {"box": (5, 5, 30, 40), "points": [[10, 10]]})


def picture(height=53, width=37, seed=0):
    return ImageInput(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_prompt_gives_a_mask_of_the_image_s_size(family, prompt, dtype):
    found = SamMasks(MODELS[family](), "tiny", dtype=dtype).segment(picture(), **prompt)
    assert found is None or (found.shape == (53, 37) and found.dtype == torch.bool and found.any())


@pytest.mark.parametrize("family", MODELS)
def test_another_box_gives_another_mask(family):
    masks = SamMasks(MODELS[family](), "tiny")
    logits = []
    masks._to_image = lambda values, size, image_size: logits.append(values) or torch.ones(image_size)
    masks.segment(picture(), box=(0, 0, 10, 10))
    masks.segment(picture(), box=(20, 20, 36, 52))
    assert not torch.allclose(*logits)


@pytest.mark.parametrize("family", MODELS)
def test_logits_come_back_to_the_pixels_they_belong_to(family):
    masks = SamMasks(MODELS[family](), "tiny")
    _, size = masks.prepare(picture(40, 80).rgb)
    side = 32
    logits = torch.full((1, side, side), -1.0)
    # the right half of the image inside the square input
    right = round(size[1] / masks.side * side / 2)
    logits[:, :, right:] = 1
    found = masks._to_image(logits, size, (40, 80)) > 0
    assert found.shape == (40, 80) and found[:, 42:].all() and not found[:, :38].any()


def test_sam_pads_and_sam2_stretches():
    rgb = np.full((40, 80, 3), 255, np.uint8)
    padded, size = SamMasks(tiny_sam(), "tiny").prepare(rgb)
    assert padded.shape == (3, 128, 128) and size == (64, 128)
    assert (padded[:, 64:] == 0).all() and (padded[:, :64] > 1).all()
    stretched, size = SamMasks(tiny_sam2(), "tiny").prepare(rgb)
    assert stretched.shape == (3, 128, 128) and size == (128, 128) and (stretched > 1).all()


def test_without_a_prompt_the_error_says_what_is_needed():
    with pytest.raises(InputError, match="needs a box, points or a category model"):
        SamMasks(tiny_sam(), "tiny").segment(picture())


class Prompter(MaskSource):
    name = "stub"

    def __init__(self, box, points):
        self.found = box, points

    def features(self, image):
        return "features"

    def prompts(self, features, image):
        assert features == "features"
        return self.found


@pytest.mark.parametrize("family", MODELS)
def test_the_category_model_prompts_where_nobody_else_does(family):
    masks = SamMasks(MODELS[family](), "tiny", Prompter((5, 5, 30, 40), np.array([[10.0, 10.0]])))
    expected = masks.segment(picture(), box=(5, 5, 30, 40), points=[[10, 10]])
    for found in (masks.segment(picture()), masks.segment_features("features", picture())):
        assert (found is None and expected is None) or torch.equal(found, expected)
    nothing = SamMasks(MODELS[family](), "tiny", Prompter(None, None))
    assert nothing.segment(picture()) is None and nothing.segment_features("features", picture()) is None


class Threshold(torch.nn.Module):
    """Stands where the network is: bright pixels are the object. Keeps the prompts that it was given."""

    def __init__(self, family):
        super().__init__()
        real = MODELS[family]()
        self.config, self.vision_encoder, self.mask_decoder = real.config, torch.nn.Identity(), torch.nn.Identity()

    def get_image_embeddings(self, pixels):
        return pixels

    def forward(self, image_embeddings, multimask_output, **prompts):
        self.prompts = prompts
        return SimpleNamespace(pred_masks=image_embeddings[:, None, :1])


def threshold(family):
    model = Threshold(family)
    model.__class__ = type("SamModel" if family == "sam" else "Sam2Model", (Threshold,), {})
    return SamMasks(model, "stub")


def blob(height, width, centre):
    rows, columns = np.mgrid[0:height, 0:width]
    inside = (columns - centre[0]) ** 2 + (rows - centre[1]) ** 2 < 10**2
    return ImageInput(np.repeat(np.where(inside, 255, 0).astype(np.uint8)[..., None], 3, 2)), torch.from_numpy(inside)


def overlap(a, b):
    return ((a & b).sum() / (a | b).sum()).item()


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("size", [(60, 90), (91, 47)])
def test_masks_and_prompts_move_with_the_image(family, size):
    masks = threshold(family)
    image, inside = blob(*size, (25, 30))
    box, points = (10, 15, 40, 45), [[25.0, 30.0]]
    found = masks.segment(image, box=box, points=points)
    prompts = {name: value.clone() for name, value in masks.model.prompts.items()}
    assert overlap(found, inside) > 0.9
    # moved by 4 pixels right and 7 down
    moved, _ = blob(*size, (29, 37))
    shifted = masks.segment(moved, box=np.add(box, (4, 7, 4, 7)), points=np.add(points, (4, 7)))
    assert overlap(shifted[7:, 4:], found[:-7, :-4]) > 0.95
    sides = masks.prepare(image.rgb)[1]
    scale = torch.tensor([sides[1] / size[1], sides[0] / size[0]])
    step = (masks.model.prompts["input_points"] - prompts["input_points"]).reshape(2)
    torch.testing.assert_close(step, torch.tensor([4.0, 7.0]) * scale, rtol=1e-4, atol=1e-3)
    # mirrored
    width = size[1]
    mirrored = masks.segment(image.mirror(), box=(width - 40, 15, width - 10, 45), points=[[width - 1 - 25.0, 30.0]])
    assert overlap(mirrored.flip(1), found) > 0.95
    corners = masks.model.prompts["input_boxes"].reshape(2, 2) / scale
    torch.testing.assert_close(corners, torch.tensor([[width - 40.0, 15], [width - 10, 45]]), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("family", MODELS)
def test_a_cache_hit_gives_what_was_computed(tmp_path, family):
    prompts = {"box": (10, 15, 40, 45), "points": [[25.0, 30.0]]}
    image, _ = blob(60, 90, (25, 30))
    computed = threshold(family).segment(image, **prompts)
    cache = Cache(tmp_path)
    found = [CachedMasks(threshold(family), "sam:stub", cache).segment(image, **prompts) for _ in range(2)]
    assert cache.counts["masks_hits"] == 1 and all(torch.equal(mask, computed) for mask in found)
    other = CachedMasks(threshold(family), "sam:stub", cache).segment(image, box=(0, 0, 5, 5))
    assert cache.counts["masks_computed"] == 2 and other is not None  # another prompt is another question


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("size", [(1, 50), (70, 3), (128, 128)])
def test_odd_sizes(family, size):
    found = SamMasks(MODELS[family](), "tiny").segment(picture(*size), box=(0, 0, size[1] - 1, size[0] - 1))
    assert found is None or found.shape == size


@pytest.mark.parametrize("family", MODELS)
def test_only_the_image_encoder_runs_in_half_precision(family):
    model = MODELS[family]()
    masks = SamMasks(model, "tiny", dtype=torch.bfloat16)
    assert {p.dtype for p in model.vision_encoder.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.prompt_encoder.parameters()} == {torch.float32}
    logits = {}
    for name, provider in (("half", masks), ("single", SamMasks(MODELS[family](), "tiny"))):
        provider._to_image = lambda values, size, image_size, name=name: logits.update({name: values}) or torch.ones(image_size)
        provider.segment(picture(), box=(5, 5, 30, 40))
    assert (logits["half"] - logits["single"]).abs().max() < 0.05 * logits["single"].abs().max() + 1e-3
    model.mask_decoder.iou_token.weight.data.fill_(torch.nan)
    with pytest.raises(InputError, match="NaN or infinity in bfloat16; choose another number format: add ,dtype=float32"):
        masks.segment(picture(), box=(5, 5, 30, 40))


@pytest.mark.slow
def test_the_published_checkpoints_of_sam2_which_hold_a_video_model_load(tmp_path):
    config = tiny_sam2().config
    parts = {name: getattr(config, name).to_dict() for name in ("vision_config", "prompt_encoder_config", "mask_decoder_config")}
    memory = {"memory_attention_hidden_size": 32, "memory_attention_feed_forward_hidden_size": 16, "memory_attention_num_layers": 1}
    encoder = {"memory_encoder_hidden_size": 32, "memory_encoder_output_channels": 8, "mask_downsampler_embed_dim": 32}
    rest = {"memory_fuser_embed_dim": 32, "memory_fuser_intermediate_dim": 32, "memory_attention_rope_feat_sizes": [8, 8]}
    video = transformers.Sam2VideoModel(transformers.Sam2VideoConfig(**parts, **memory, **encoder, **rest, image_size=128))
    video.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "sam2_video"
    loaded = load_sam("sam2", str(tmp_path), device="cpu")
    assert loaded.name.startswith("sam2@") and not loaded.pads
    state = video.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.model.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("family", MODELS)
def test_the_wrong_model_is_refused(tmp_path, family):
    MODELS[family]().save_pretrained(tmp_path)
    other = "sam2" if family == "sam" else "sam"
    with pytest.raises(FileFormatError, match=f"{tmp_path} (is|holds) no complete {other} model"):
        load_sam(other, str(tmp_path), device="cpu")


@pytest.mark.parametrize("family", MODELS)
def test_loading_from_a_folder(tmp_path, family):
    MODELS[family]().save_pretrained(tmp_path)
    found = load_sam(family, str(tmp_path), device="cpu").segment(picture(), box=(5, 5, 30, 40))
    expected = SamMasks(MODELS[family](), "tiny").segment(picture(), box=(5, 5, 30, 40))
    assert torch.equal(found, expected)
