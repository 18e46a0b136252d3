"""SFNet's network: what its grids mean, its readouts, which parameters there are, what its files hold."""

import pytest
import torch
from tiny_pyramid import TinyPyramid

from semalign3d_core.learned.sfnet.network import READOUTS, SFNet, SFNetConfig, kernel_weighted, positions
from semalign3d_core.learned.sfnet.pyramids import BLOCKS, EfficientNetPyramid, ResNet101Pyramid, create_pyramid, pyramid_blocks
from semalign3d_core.learned.sfnet.storage import load_network, save_network
from semalign3d_core.perception.backbones.efficientnet_lite import EfficientNetLite, block_table
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError


def network(**settings):
    torch.manual_seed(1)
    return SFNet(TinyPyramid(), SFNetConfig(cells=8, **settings)).eval()


def picture(seed=0):
    return torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("readout", ["hard", "kernel"])
def test_an_image_matches_itself(readout):
    """Every cell is where it is, and there is no flow; a soft arg-max over all cells is drawn to the middle."""
    found = network(adapt=False, readout=readout, beta=400.0, sigma=0.5)(picture(), picture())
    for grid, flow in zip(found.grids, found.flows, strict=True):
        torch.testing.assert_close(grid[0], positions((8, 8), grid), atol=0.02, rtol=0)
        assert flow.abs().max() < 0.02


def test_both_directions_say_where_things_went():
    """Of two images that differ by a shift of four cells, the flow S to T is that shift and T to S its opposite."""
    seen = picture()
    found = network(adapt=False, readout="hard")(seen, seen.roll(64, 3))
    step = 2 / 7
    inside = found.flows[0][0, 0, :, :4], found.flows[1][0, 0, :, 4:]
    torch.testing.assert_close(inside[0], torch.full((8, 4), 4 * step), atol=1e-5, rtol=0)
    torch.testing.assert_close(inside[1], torch.full((8, 4), -4 * step), atol=1e-5, rtol=0)


def test_one_direction_alone_is_the_same():
    net = network()
    with torch.no_grad():
        source, target = (net.adapted(*net.pyramid(picture(seed))) for seed in (0, 1))
        both = net.compare(source, target)
        for (start, end), grid in zip(((source, target), (target, source)), both.grids, strict=True):
            torch.testing.assert_close(net.carry(start, end)[1], grid)


def test_no_gradient_goes_through_the_place_of_the_largest_score():
    """Moving the peak of a Gaussian has no gradient: that of the weighted scores is the Gaussian itself."""
    scores = torch.rand(1, 12, 2, 2, requires_grad=True)
    kernel_weighted(scores, (3, 4), 2.0).sum().backward()
    weight = kernel_weighted(torch.ones(1, 12, 1, 1), (3, 4), 2.0)[0, :, 0, 0]
    assert weight[0] == 1 and weight.argmax() == 0  # of equal scores the first is the peak
    assert (scores.grad.amax(1) == 1).all() and (scores.grad > 0).all()


def test_the_first_of_equal_scores_is_the_hard_match():
    grid = READOUTS["hard"](torch.zeros(1, 12, 1, 1), (3, 4), SFNetConfig())
    torch.testing.assert_close(grid[0, 0, 0], torch.tensor([-1.0, -1.0]))


def test_only_adaptation_layers_are_parameters():
    """The frozen features are neither trained nor saved, and stay in evaluation mode."""
    net = network().train()
    names = {name.split(".")[0] for name in net.state_dict()}
    assert names == {"adap_layer_feat3", "adap_layer_feat4"}
    assert not net.pyramid.training and not any(p.requires_grad for p in net.pyramid.parameters())
    assert {"adap_layer_feat3.conv1.0.weight", "adap_layer_feat4.conv2.1.running_var"} <= set(net.state_dict())
    assert {name.split(".")[0] for name in network(levels=(3,)).state_dict()} == {"adap_layer_feat3"}
    assert not network(adapt=False).state_dict()


@pytest.mark.parametrize("settings", [{"levels": (5,)}, {"cells": 7}, {"beta": 0.0}, {"readout": "middle"}])
def test_wrong_settings_raise(settings):
    with pytest.raises(InputError):
        SFNetConfig(**settings)


@pytest.mark.parametrize("size", ["0", "1", "2"])
def test_the_efficientnet_pyramid_has_two_levels_of_half_size(size):
    blocks = pyramid_blocks(size)
    assert [block_table(size)[block][1] for block in blocks] == [16, 32]
    pyramid = EfficientNetPyramid(EfficientNetLite(size, blocks))
    with torch.inference_mode():
        third, fourth = pyramid(torch.rand(1, 3, 64, 64))
    assert third.shape == (1, pyramid.channels[0], 4, 4) and fourth.shape == (1, pyramid.channels[1], 2, 2)


@pytest.mark.slow
def test_resnet_has_the_published_names_and_sizes(tmp_path):
    """State dicts with torchvision's names load strictly; the features have 1024 and 2048 channels at strides 16 and 32."""
    pyramid = ResNet101Pyramid().eval()
    state = pyramid.state_dict() | {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    assert sum(name.startswith("layer3.") and name.endswith("conv2.weight") for name in state) == BLOCKS[2]
    assert sum(value.numel() for name, value in pyramid.named_parameters()) == 42_500_160  # ResNet-101's 44,549,160 without its classifier
    torch.save(state, tmp_path / "resnet101.pth")
    loaded = create_pyramid(f"resnet101:{tmp_path}/resnet101.pth")
    with torch.inference_mode():
        third, fourth = loaded(picture())
        torch.testing.assert_close((third, fourth), pyramid(picture()))
    assert third.shape == (1, 1024, 8, 8) and fourth.shape == (1, 2048, 4, 4)
    del state["layer4.2.bn3.bias"]
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(FileFormatError, match="torchvision"):
        create_pyramid(f"resnet101:{tmp_path}/cut.pth")


def test_a_file_gives_the_same_network(tmp_path):
    net = network(sigma=3.0)
    save_network(net, tmp_path / "net.safetensors", pictures=3)
    loaded = load_network(tmp_path / "net.safetensors", net.pyramid)
    assert loaded.config == net.config
    with torch.no_grad():
        torch.testing.assert_close(loaded(picture(), picture(1)).grids, net(picture(), picture(1)).grids)


def test_other_files_raise(tmp_path):
    (tmp_path / "net.safetensors").write_text("no tensors")
    with pytest.raises(FileFormatError, match=r"net\.safetensors"):
        load_network(tmp_path / "net.safetensors", TinyPyramid())
    with pytest.raises(MissingFileError, match="train sfnet"):
        load_network(tmp_path / "absent.safetensors", TinyPyramid())


def test_the_published_checkpoint_is_read_strictly(tmp_path):
    """Two state dicts, one per level, become the layers of the complete model."""
    net = network()
    parts = {
        f"state_dict{part}": {
            name.removeprefix(f"adap_layer_feat{level}."): value for name, value in net.state_dict().items() if f"feat{level}" in name
        }
        for part, level in ((1, 3), (2, 4))
    }
    torch.save(parts, tmp_path / "best_checkpoint.pth")
    loaded = load_network(f"{tmp_path}/best_checkpoint.pth,resnet101:absent.pth", net.pyramid)
    torch.testing.assert_close(loaded.state_dict(), net.state_dict())
    with pytest.raises(FileFormatError, match="resnet101:FILE"):
        load_network(f"{tmp_path}/best_checkpoint.pth", net.pyramid)
    del parts["state_dict2"]["conv1.0.bias"]
    torch.save(parts, tmp_path / "cut.pth")
    with pytest.raises(FileFormatError, match="does not fit"):
        load_network(f"{tmp_path}/cut.pth,resnet101:absent.pth", net.pyramid)
