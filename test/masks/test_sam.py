"""SAM and SAM 2 on tiny random models of the same classes."""

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="needs the extra hf")

from semalign3d_core.errors import InputError
from semalign3d_core.evidence import ImageInput
from semalign3d_core.masks.sam import SamMasks, load_sam
from semalign3d_core.tiny_models import tiny_sam, tiny_sam2

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


class Prompter:
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


@pytest.mark.parametrize("family", MODELS)
def test_loading_from_a_folder(tmp_path, family):
    MODELS[family]().save_pretrained(tmp_path)
    found = load_sam(family, str(tmp_path), device="cpu").segment(picture(), box=(5, 5, 30, 40))
    expected = SamMasks(MODELS[family](), "tiny").segment(picture(), box=(5, 5, 30, 40))
    assert torch.equal(found, expected)
