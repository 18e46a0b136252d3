"""The GeoAware post-processor: official names and shapes, loading of checkpoints."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from semalign3d_core.learned.geoaware.network import AggregationNetwork, load_network
from semalign3d_core.perception.backbones.fused import fuse_maps, to_tokens, zero_shot_normalize
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError

OFFICIAL = Path(__file__).parents[2] / "data" / "vectors" / "geoaware" / "state_dict_official.json"


def small():
    torch.manual_seed(0)
    return AggregationNetwork((24, 40, 40, 32), 32, groups=8).eval()


def test_names_and_shapes_are_the_official_ones():
    official = json.loads(OFFICIAL.read_text())
    state = AggregationNetwork().state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == official["shapes"]
    assert len(state) == official["num_tensors"] == 48
    assert sum(value.numel() for value in state.values()) == official["num_parameters"] == 5_150_214


@pytest.mark.parametrize("suffix", [".PTH", ".safetensors"])
def test_a_saved_network_loads_with_its_sizes_read_off(tmp_path, suffix):
    path = tmp_path / f"best{suffix}"
    network = small()
    (save_file if suffix == ".safetensors" else torch.save)(network.state_dict(), path)
    loaded = load_network(path, groups=8)
    features = torch.randn(2, 136, 5, 6)
    with torch.no_grad():
        assert torch.equal(loaded(features), network(features))


def test_dropout_acts_in_training_only():
    network = AggregationNetwork((8, 8), 32, groups=4, dropout=0.2)
    features = torch.randn(1, 16, 6, 6)
    network.train()
    assert not torch.equal(network(features), network(features))
    network.eval()
    assert torch.equal(network(features), network(features))


def broken(change):
    state = dict(small().state_dict())
    change(state)
    return state


@pytest.mark.parametrize(
    "change, named",
    [
        (lambda s: s.pop("bottleneck_layers.1.0.conv2.norm.bias"), "missing bottleneck_layers.1.0.conv2.norm.bias"),
        (lambda s: s.pop("logit_scale"), "missing logit_scale"),
        (lambda s: s.pop("bottleneck_layers.2.0.conv1.weight"), "missing bottleneck_layers.2.0.conv1.weight"),
        (lambda s: s.pop("bottleneck_layers.0.0.conv3.weight"), "missing bottleneck_layers.0.0.conv3.weight"),
        (lambda s: s.update(extra=torch.zeros(1)), "unexpected extra"),
        (lambda s: s.update(logit_scale=torch.zeros(3)), r"logit_scale has shape \(3,\), expected \(\)"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, change, named):
    path = tmp_path / "wrong.PTH"
    torch.save(broken(change), path)
    with pytest.raises(FileFormatError, match=named):
        load_network(path, groups=8)


def test_only_the_first_mixing_weights_are_taken(tmp_path):
    path = tmp_path / "more.PTH"
    torch.save(broken(lambda s: s.update(mixing_weights=torch.arange(6.0))), path)
    assert load_network(path, groups=8).mixing_weights.tolist() == [0, 1, 2, 3]


class Surprise:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of the file was run')",))


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    path = tmp_path / "evil.PTH"
    torch.save({"logit_scale": Surprise()}, path, pickle_module=pickle)
    with pytest.raises(FileFormatError, match=r"evil\.PTH"):
        load_network(path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 truncated"])
def test_a_damaged_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "damaged.PTH"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"damaged\.PTH"):
        load_network(path)


def test_a_missing_checkpoint_and_wrong_channels_are_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"nothing\.PTH"):
        load_network(tmp_path / "nothing.PTH")
    with pytest.raises(InputError, match="7 channels"):
        small()(torch.zeros(1, 7, 4, 4))


def test_fusion_needs_one_grid():
    s3, s4, s5 = (torch.randn(1, 2, n, n) for n in (8, 4, 2))
    assert fuse_maps(s3, s4, s5, torch.randn(1, 3, 8, 8)).shape == (1, 9, 8, 8)
    with pytest.raises(InputError, match="same grid"):
        fuse_maps(s3, s4, s5, torch.randn(1, 3, 7, 7))


def test_zero_shot_tokens_do_not_depend_on_the_scale_of_a_part():
    tokens = to_tokens(torch.randn(1, 10, 3, 3))
    scaled = torch.cat([5 * tokens[..., :6], 0.1 * tokens[..., 6:]], -1)
    torch.testing.assert_close(zero_shot_normalize(tokens, 6), zero_shot_normalize(scaled, 6))
