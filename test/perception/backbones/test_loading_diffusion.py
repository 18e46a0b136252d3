"""Stable Diffusion, its captioner and the GeoAware post-processor from files in the published layouts, on tiny models."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="needs the extra hf")
pytest.importorskip("diffusers", reason="needs the extra hf")

import transformers
from tiny_models import tiny_captioner, tiny_diffusion, tiny_transformer

from semalign3d_core.learned.geoaware import backbone as geoaware_module
from semalign3d_core.learned.geoaware.backbone import load_geoaware
from semalign3d_core.learned.geoaware.network import AggregationNetwork
from semalign3d_core.perception import backbones
from semalign3d_core.perception.backbones import captioner as captioner_module
from semalign3d_core.perception.backbones.captioner import LEARNED, ImplicitCaptioner, load_captioner
from semalign3d_core.perception.backbones.stable_diffusion import StableDiffusionBackbone
from semalign3d_core.perception.backbones.transformers_vit import TransformerBackbone
from semalign3d_core.perception.evidence import ImageInput
from semalign3d_core.perception.weights.store import Located
from semalign3d_core.runtime.errors import FileFormatError, InputError

START, END = "<|startoftext|>", "<|endoftext|>"


def picture(height=53, width=37, seed=0):
    return ImageInput(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny Stable Diffusion in diffusers layout."""
    root = tmp_path_factory.mktemp("diffusion")
    vae, unet, _ = tiny_diffusion()
    vae.save_pretrained(root / "vae")
    unet.save_pretrained(root / "unet")
    torch.manual_seed(0)
    shape = {"hidden_size": 12, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 4}
    tokens = {"max_position_embeddings": 7, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    transformers.CLIPTextModel(transformers.CLIPTextConfig(**shape, **tokens)).save_pretrained(root / "text_encoder")
    tokenizer = root / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "vocab.json").write_text(json.dumps({"a</w>": 0, START: 1, END: 2, "a": 3}))
    (tokenizer / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 7} | special))
    return root


@pytest.mark.slow
def test_the_parts_are_read_and_the_prompt_is_the_empty_text(folder):
    loaded = backbones.create(f"sd:{folder},device=cpu")
    encoder = transformers.CLIPTextModel.from_pretrained(folder / "text_encoder").eval()
    with torch.no_grad():  # start of text, then end of text to the length
        empty = encoder(torch.tensor([[1, 2, 2, 2, 2, 2, 2]])).last_hidden_state
    torch.testing.assert_close(loaded.text, empty)
    expected = StableDiffusionBackbone(*tiny_diffusion()[:2], empty, "x").extract(picture()).values
    torch.testing.assert_close(loaded.extract(picture()).values, expected)


@pytest.mark.slow
def test_time_step_and_record_are_options(folder):
    plain, other = (backbones.create(f"sd:{folder},device=cpu{options}") for options in ("", ",step=100,record=concatenated"))
    assert (plain.config.step, other.config.step) == (50, 100) and other.channels > plain.channels and other.name != plain.name
    with pytest.raises(InputError, match="unknown record 'all': choose one of concatenated, hidden"):
        backbones.create(f"sd:{folder},record=all")
    with pytest.raises(InputError, match="choose one of 0 to 999"):
        backbones.create(f"sd:{folder},step=1000")


@pytest.mark.slow
def test_a_missing_part_is_named(folder, tmp_path):
    for name in ("vae", "unet", "tokenizer"):
        (tmp_path / name).symlink_to(folder / name)
    with pytest.raises(FileFormatError, match=f"{tmp_path} holds no complete Stable Diffusion"):
        backbones.create(f"sd:{tmp_path},device=cpu")


@pytest.fixture
def clip_folder(tmp_path, monkeypatch):
    """A tiny CLIP where the captioner looks for the real one."""
    root = tmp_path / "clip"
    tiny_captioner()[0].save_pretrained(root)
    monkeypatch.setattr(captioner_module, "locate", lambda weights: Located(root, None, weights.id))
    return root


def published_captioner(path, change=lambda state: None):
    """A checkpoint as ODISE wrote it: the learned tensors deep inside, among others."""
    state = {f"backbone.feature_extractor.{name}": value for name, value in tiny_captioner()[1].items()}
    state["sem_seg_head.predictor.weight"] = torch.zeros(3)
    change(state)
    torch.save({"model": state, "iteration": 7}, path)
    return path


def test_the_learned_tensors_are_found_in_a_whole_checkpoint(tmp_path, clip_folder):
    path = published_captioner(tmp_path / "odise.pth")
    loaded = load_captioner(path, "cpu", torch.float32)
    expected = ImplicitCaptioner(*tiny_captioner(), "x")
    crop, empty = torch.rand(1, 3, 128, 128), torch.randn(1, 7, 12)
    for found, wanted in zip(loaded.condition(crop, empty), expected.condition(crop, empty), strict=True):
        torch.testing.assert_close(found, wanted)
    # features made with another checkpoint have another name
    other = published_captioner(tmp_path / "other.pth", lambda s: s["backbone.feature_extractor.alpha_cond"].add_(1))
    assert load_captioner(other, "cpu", torch.float32).name != loaded.name


@pytest.mark.parametrize("name", LEARNED)
def test_a_missing_learned_tensor_is_named(tmp_path, clip_folder, name):
    path = published_captioner(tmp_path / "odise.pth", lambda state: state.pop(f"backbone.feature_extractor.{name}"))
    with pytest.raises(FileFormatError, match=f"expected one tensor named {name}, found none"):
        load_captioner(path, "cpu", torch.float32)


@pytest.mark.slow
def test_the_whole_of_geoaware_from_files(tmp_path, clip_folder, folder, monkeypatch, caplog):
    diffusion = backbones.create(f"sd:{folder},device=cpu,captioner={published_captioner(tmp_path / 'odise.pth')}")
    loads = {"load_diffusion": lambda *a: diffusion, "load_transformer": lambda *a, **k: TransformerBackbone(tiny_transformer(), "tiny")}
    for name, stand_in in loads.items():
        monkeypatch.setattr(geoaware_module, name, stand_in)
    torch.manual_seed(0)
    network = AggregationNetwork((16, 32, 32, 24), 128).eval()
    torch.save(network.state_dict(), tmp_path / "best.PTH")
    found = load_geoaware(str(tmp_path / "best.PTH"), "given", device="cpu")
    assert "expects ODISE's captioner" not in caplog.text
    values = found.extract(picture()).values
    assert values.shape == (128, 60, 60) and values.min() >= 0 and found.channels == 128
    torch.testing.assert_close(values.norm(dim=0), torch.ones(60, 60))
    load_geoaware(str(tmp_path / "best.PTH"), device="cpu")
    assert "expects ODISE's captioner: add ,captioner=FILE" in caplog.text
