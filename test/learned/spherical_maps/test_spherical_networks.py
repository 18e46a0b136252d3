"""Mapper and decoder: published sizes, official checkpoints, and what the category token does."""

import pytest
import torch

from semalign3d_core.learned.spherical_maps.network import SphericalMaps, sphere_mapper, sphere_points
from semalign3d_core.learned.spherical_maps.storage import MapperFacts, load_mapper, load_spherical_maps, read_facts, save_spherical_maps
from semalign3d_core.runtime.errors import FileFormatError


def distinct(module):
    return sum(p.numel() for p in {id(p): p for p in module.parameters()}.values())


def test_published_sizes():
    model = SphericalMaps()
    assert distinct(model.sphere_mapper) == 2_069_763
    assert distinct(model.prototypes) == 5_936_640
    assert sum(name.startswith("prototypes.blocks.1.") for name in model.state_dict()) == 13  # listed twice


@pytest.mark.parametrize("channels", [3, 64, 96, 100, 296, 768])
def test_any_width_gives_unit_vectors(channels):
    points = sphere_points(sphere_mapper(channels)(torch.randn(2, 5, channels)))
    assert points.shape == (2, 5, 3)
    torch.testing.assert_close(points.norm(dim=-1), torch.ones(2, 5))


def test_queries_and_keys_are_dead_and_layers_are_one():
    decoder = SphericalMaps(64, 3).prototypes
    decoder(torch.randn(1, 4, 3), torch.eye(3)[:1].expand(1, 4, 3)).sum().backward()
    block = decoder.blocks[0]
    assert decoder.blocks[1] is block
    assert block.attn.q.weight.grad is None and block.attn.k.weight.grad is None and block.norm1.weight.grad is None
    assert block.attn.v.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_checkpoints_come_back_as_they_were(tmp_path, suffix):
    model, path = SphericalMaps(128, 4), tmp_path / f"checkpoint{suffix}"
    save_spherical_maps(model, path, MapperFacts("dino", False, ("a", "b", "c", "d")))
    loaded = load_spherical_maps(path)
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    tokens = torch.randn(1, 7, 128)
    torch.testing.assert_close(load_mapper(path)(tokens), model.sphere_mapper(tokens))
    facts = read_facts(path)
    assert facts == (MapperFacts("dino", False, ("a", "b", "c", "d")) if suffix == ".safetensors" else MapperFacts())


def test_official_layout(tmp_path):
    path = tmp_path / "official.pth"
    save_spherical_maps(SphericalMaps(128, 18), path)
    state = torch.load(path, weights_only=True)
    assert state["sphere.weight"].shape == (1024, 3)
    assert state["sphere_mapper.2.attn.qkv.weight"].shape == (192, 64)
    assert {name[14:] for name in state if "sphere_mapper" in name} == set(sphere_mapper(128).state_dict())  # as their loader cuts
    torch.save({f"module.{name}": value for name, value in state.items()}, path)  # a prefix of a training framework does no harm
    load_spherical_maps(path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda state: state.pop("sphere_mapper.2.norm1.bias"), "missing sphere_mapper.2.norm1.bias"),
        (lambda state: state.update({"sphere_mapper.9.weight": torch.zeros(1)}), "unexpected sphere_mapper.9.weight"),
        (lambda state: state.update({"backbone.weight": torch.zeros(1)}), "unexpected backbone.weight"),
        (lambda state: state.update({"sphere_mapper.3.bias": torch.zeros(4)}), "sphere_mapper.3.bias has shape"),
        (lambda state: state.update({"prototypes.blocks.1.norm2.bias": torch.ones(64)}), "the decoder's two layers are one"),
    ],
)
def test_what_is_wrong_with_a_checkpoint_is_named(tmp_path, change, text):
    path = tmp_path / "checkpoint.pth"
    save_spherical_maps(SphericalMaps(64, 2), path)
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    with pytest.raises(FileFormatError, match=text):
        load_spherical_maps(path)


def test_a_file_of_the_mapper_alone_is_enough(tmp_path):
    path, model = tmp_path / "mapper.pth", SphericalMaps(64, 2)
    torch.save({name: value for name, value in model.state_dict().items() if name.startswith("sphere_mapper")}, path)
    assert load_mapper(path)[0].in_features == 64
    with pytest.raises(FileFormatError, match="missing prototypes"):
        load_spherical_maps(path)
