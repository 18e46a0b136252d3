"""The embedded backbone: where its cells are, what its files must be."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from semalign3d_core.geometry.image_grid import SquareGrid, mirror_image
from semalign3d_core.geometry.mask_field import mask_box, square_around
from semalign3d_core.learned.compact.train import CompactTraining, save_network
from semalign3d_core.perception.backbones.compact import CELLS, INPUT_SIDE, CompactBackbone, CompactNet, load_network, prepare
from semalign3d_core.perception.cached_providers import CachedBackbone
from semalign3d_core.perception.evidence import ImageInput
from semalign3d_core.perception.look import look
from semalign3d_core.runtime.cache import Cache
from semalign3d_core.runtime.errors import FileFormatError, MissingFileError


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "net.safetensors"
    save_network(CompactNet(16).eval(), path, "compact-test", CompactTraining())
    return path


def image(height, width, seed=0):
    return ImageInput(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def whole(picture):
    """What the network sees of a picture without a window."""
    return prepare(picture.rgb, SquareGrid(picture.height, picture.width, CELLS))


@pytest.mark.slow
@pytest.mark.parametrize("height, width", [(256, 256), (97, 201), (333, 120), (1, 1)])
def test_features_are_unit_and_know_their_image(weights, height, width):
    features = CompactBackbone(weights).extract(image(height, width))
    assert features.values.shape == (2 * 16, CELLS, CELLS)
    assert (features.grid.height, features.grid.width) == (height, width)
    torch.testing.assert_close(features.values.norm(dim=0), torch.ones(CELLS, CELLS))


@pytest.mark.slow
def test_a_mirror_image_exchanges_the_two_views(weights):
    """Each half of the channels is what the network says of the picture or of its mirror image."""
    backbone, picture = CompactBackbone(weights), image(80, 80)
    seen, mirrored = (backbone.extract(view).values for view in (picture, picture.mirror()))
    torch.testing.assert_close(mirrored.flip(-1).roll(16, dims=0), seen)
    network, *_ = load_network(weights)
    with torch.inference_mode():
        torch.testing.assert_close(seen[:16], network(whole(picture)[None])[0] / 2**0.5)
    assert (seen[:16] - seen[16:]).abs().max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("window", [(20, 10, 64), (-9, 30, 100)])
def test_of_a_window_it_sees_nothing_else(weights, window):
    """Features of a window are those of the picture that is cut out of grey surroundings, and lie where the window lies."""
    backbone, picture = CompactBackbone(weights), image(90, 120)
    left, top, side = window
    surroundings = np.full((290, 320, 3), 128, np.uint8)
    surroundings[100:190, 100:220] = picture.rgb
    alone = ImageInput(np.ascontiguousarray(surroundings[100 + top : 100 + top + side, 100 + left : 100 + left + side]))
    features = backbone.extract(replace(picture, window=window))
    torch.testing.assert_close(features.values, backbone.extract(alone).values)
    place = torch.tensor([[left + side / 2, top + side / 3]])
    torch.testing.assert_close(features.sample(place), backbone.extract(alone).sample(place - torch.tensor([left, top])))


@pytest.mark.slow
def test_it_looks_closer_where_the_mask_is_known(weights):
    backbone, picture, mask = CompactBackbone(weights), image(90, 120), torch.zeros(90, 120, dtype=torch.bool)
    mask[20:50, 30:60] = True
    assert look(picture, backbone).features.grid.window is None
    assert look(picture, backbone, mask=torch.zeros(90, 120, dtype=torch.bool)).features.grid.window is None
    evidence = look(picture, backbone, mask=mask)
    assert evidence.features.grid.window == square_around(mask_box(mask.numpy()), backbone.close_up) and evidence.mask is mask
    mirrored = look(picture.mirror(), backbone, mask=mirror_image(mask)).features
    assert mirrored.grid == evidence.features.grid.mirrored()
    torch.testing.assert_close(mirrored.values.flip(-1).roll(16, dims=0), evidence.features.values)


@pytest.mark.slow
def test_every_window_has_an_entry_of_its_own_in_the_cache(weights, tmp_path):
    backbone, picture, mask = CompactBackbone(weights), image(90, 120), torch.zeros(90, 120, dtype=torch.bool)
    mask[20:50, 30:60] = True
    for _ in range(2):  # computed, and read again
        cached = CachedBackbone.wrap(backbone, "compact", Cache(tmp_path))
        for known in (mask, mask.flip(0), None):
            found, expected = look(picture, cached, mask=known).features, look(picture, backbone, mask=known).features
            assert found.grid == expected.grid
            torch.testing.assert_close(found.values, expected.values, atol=2e-3, rtol=0)


def test_a_shift_by_whole_cells_shifts_the_features(weights):
    """Without what looks at the whole picture, and away from borders, moving the picture by whole cells moves the map."""
    network, *_ = load_network(weights)
    network.attention = torch.nn.Identity()
    torch.nn.init.zeros_(network.position)
    x = torch.rand(1, 3, INPUT_SIDE, INPUT_SIDE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        moved = network(x.roll((16, 32), dims=(2, 3)))
        torch.testing.assert_close(moved[0, :, 26:30, 30:34], network(x)[0, :, 22:26, 22:26], atol=1e-4, rtol=0)


def test_prepare_keeps_places():
    """A bright pixel block lands in the cell that the grid says."""
    rgb = np.zeros((96, 384, 3), np.uint8)
    rgb[40:48, 288:296] = 255  # cell side 8 pixels on 48 cells: column 36, row 5
    small = whole(ImageInput(rgb))
    bright = (small[0] > 0.9).nonzero().float().mean(0)
    assert torch.allclose(bright / 4 - 0.375, torch.tensor([5.0, 36.0]), atol=0.01)


@pytest.mark.slow
def test_classes_are_probabilities_of_background_and_categories(weights):
    backbone = CompactBackbone(weights)
    probability = backbone.class_probabilities(backbone.extract(image(64, 80)))
    assert probability.shape == (1 + len(backbone.categories), CELLS, CELLS)
    torch.testing.assert_close(probability.sum(0), torch.ones(CELLS, CELLS))


@pytest.mark.slow
def test_classes_are_the_mean_over_both_views(weights):
    torch.manual_seed(0)
    network, picture = CompactNet(16).eval(), image(80, 80)
    torch.nn.init.normal_(network.classes.weight, generator=torch.Generator().manual_seed(2))  # so that views differ visibly
    save_network(network, weights, "compact-test", CompactTraining())
    backbone = CompactBackbone(weights)
    network, *_ = load_network(weights)
    with torch.inference_mode():
        seen, mirrored = (network.classify(network(whole(view)[None]))[0].softmax(0) for view in (picture, picture.mirror()))
    assert (seen - mirrored.flip(-1)).abs().max() > 0.01
    torch.testing.assert_close(backbone.class_probabilities(backbone.extract(picture)), (seen + mirrored.flip(-1)) / 2)


@pytest.mark.slow
def test_a_glance_is_one_view(weights):
    backbone, picture = CompactBackbone(weights), image(80, 100)
    network, *_ = load_network(weights)
    grid, probability = backbone.glance(picture)
    with torch.inference_mode():
        torch.testing.assert_close(probability, network.classify(network(whole(picture)[None]))[0].softmax(0))
    assert grid == backbone.extract(picture).grid


def test_an_object_is_followed_by_one_view_whose_similarities_compare_with_those_of_two(weights):
    backbone, picture = CompactBackbone(weights), image(80, 100)
    both, quick = backbone.extract(picture), backbone.follow(picture)
    half = backbone.channels // 2
    torch.testing.assert_close(quick.values[:half], 2 * both.values[:half], atol=1e-5, rtol=0)  # it stands for the other half, too
    assert quick.quick and not both.quick and not quick.values[half:].any() and quick.grid == both.grid
    torch.testing.assert_close(backbone.class_probabilities(quick), backbone.glance(picture)[1], atol=1e-5, rtol=0)


def test_name_comes_from_the_file(weights):
    assert CompactBackbone(weights).name == "compact-test-close-mirrored"


def test_broken_and_missing_files(tmp_path, weights):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(weights.read_bytes()[:-500])
    with pytest.raises(FileFormatError, match=r"broken\.safetensors"):
        CompactBackbone(broken)
    with pytest.raises(MissingFileError, match=r"absent\.safetensors"):
        CompactBackbone(tmp_path / "absent.safetensors")
