"""The matcher spherical_maps and its features: what is fused, where a point is read and set down, and through eval_spair."""

import dataclasses
import json

import pytest
import torch
from tiny_dataset import make_dataset
from tiny_models import tiny_transformer

from semalign3d_core.cli.eval_spair import main as eval_spair
from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.geometry.image_grid import SquareGrid
from semalign3d_core.learned.spherical_maps.backbone import SphericalMapsBackbone
from semalign3d_core.learned.spherical_maps.inference import TrainedMapper
from semalign3d_core.learned.spherical_maps.network import SphericalMaps
from semalign3d_core.learned.spherical_maps.storage import MapperFacts, save_spherical_maps
from semalign3d_core.matchers import MATCHERS
from semalign3d_core.matchers.spherical_maps import SphericalMapsMatcher
from semalign3d_core.perception import backbones
from semalign3d_core.perception.backbones.transformers_vit import TransformerBackbone
from semalign3d_core.perception.evidence import FeatureMap, ImageEvidence, read_image
from semalign3d_core.runtime.errors import InputError

CELLS = 60


def evidence(values, side=840):
    values = torch.nn.functional.normalize(values, dim=0)
    return ImageEvidence(FeatureMap(values, SquareGrid(side, side, values.shape[-1])), PinholeCamera.centred(1.5, side, side))


def folded(seed=0):
    """(features, sphere) in which two far cells have one feature and different places on the sphere."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(19, CELLS, CELLS, generator=generator)
    values[:16, 10, 40] = values[:16, 10, 20]
    values[16:, 10, 20], values[16:, 10, 40] = torch.tensor([1.0, 0, 0]), torch.tensor([-1.0, 0, 0])
    return values


@pytest.mark.parametrize("measure", ["cosine", "l2", "l1", "l2norm"])
def test_the_sphere_decides_between_equal_features(measure):
    image = evidence(folded())
    for column in (20, 40):
        query = torch.tensor([[column * 14 + 6.5, 10 * 14 + 6.5]])
        found = SphericalMapsMatcher(measure=measure).match(image, image, query)
        torch.testing.assert_close(found.points, query)
    blind = SphericalMapsMatcher(measure=measure, share=1.0)
    both = torch.tensor([[20 * 14 + 6.5, 146.5], [40 * 14 + 6.5, 146.5]])
    assert (blind.match(image, image, both).points[0] == blind.match(image, image, both).points[1]).all()


def test_rounding_of_both_releases():
    image, query = evidence(folded()), torch.tensor([[14.0 * 20 + 13.99, 14.0 * 10 + 0.01]])  # truncated into cell (20, 10)
    first = SphericalMapsMatcher().match(image, image, query).points
    later = SphericalMapsMatcher(rounding="later").match(image, image, query).points
    torch.testing.assert_close(first, torch.tensor([[286.5, 146.5]]))
    torch.testing.assert_close(later, torch.tensor([[287.0, 147.0]]))
    small = evidence(folded(), side=420)  # the canvas has twice its size
    torch.testing.assert_close(SphericalMapsMatcher().match(small, small, query / 2).points, first / 2)


def test_matches_stay_inside_the_mask_if_asked():
    image = evidence(folded())
    mask = torch.zeros(840, 840, dtype=torch.bool)
    mask[:, 420:] = True
    target, query = dataclasses.replace(image, mask=mask), torch.tensor([[20 * 14 + 6.5, 146.5]])
    torch.testing.assert_close(SphericalMapsMatcher().match(image, target, query).points, query)
    assert SphericalMapsMatcher(inside=True).match(image, target, query).points[0, 0] > 420
    torch.testing.assert_close(SphericalMapsMatcher(inside=True).match(image, image, query).points, query)  # no mask, no limit


def test_presets_and_settings():
    assert MATCHERS["spherical_maps"](preset="published") == SphericalMapsMatcher(measure="l2")
    assert MATCHERS["spherical_maps"](preset="later") == SphericalMapsMatcher(rounding="later")
    with pytest.raises(InputError, match="unknown measure"):
        SphericalMapsMatcher(measure="dot")


def test_inner_products_of_the_fused_features_are_the_fused_cosine(tiny, mapper):
    image = _first_image(tiny)
    plain = backbones.create("precomputed:sim", tiny).extract(image)
    fused = backbones.create(f"spherical_maps:{mapper},features=precomputed:sim", tiny)
    found = fused.extract(image)
    sphere = torch.nn.functional.normalize(found.values[-3:], dim=0).flatten(1)
    expected = 0.8 * plain.values.flatten(1).T @ plain.values.flatten(1) + 0.2 * sphere.T @ sphere
    torch.testing.assert_close(found.values.flatten(1).T @ found.values.flatten(1), expected, atol=1e-5, rtol=1e-4)
    assert (found.values.norm(dim=0) - 1).abs().max() < 1e-5
    assert fused.channels == plain.values.shape[0] + 3 and not fused.any_image and "sphere-" in fused.name


def test_raw_features_and_other_backbones_are_checked(tiny, mapper, tmp_path):
    raw = tmp_path / "raw.safetensors"
    save_spherical_maps(SphericalMaps(16, 2), raw, MapperFacts("sim", True))
    raw_points = backbones.create(f"spherical_maps:{raw},features=precomputed:sim", tiny).extract(_first_image(tiny)).values[-3:]
    unit_points = backbones.create(f"spherical_maps:{mapper},features=precomputed:sim", tiny).extract(_first_image(tiny)).values[-3:]
    assert raw_points.shape == unit_points.shape
    other = tmp_path / "other.safetensors"
    save_spherical_maps(SphericalMaps(16, 2), other, MapperFacts("dinov2", False))
    with pytest.raises(InputError, match="trained on features of dinov2"):
        backbones.create(f"spherical_maps:{other},features=precomputed:sim", tiny)
    wide = tmp_path / "wide.pth"
    save_spherical_maps(SphericalMaps(64, 2), wide)
    with pytest.raises(InputError, match="reads 64 channels"):
        backbones.create(f"spherical_maps:{wide},features=precomputed:sim", tiny)


@pytest.mark.slow
def test_an_official_checkpoint_reads_the_tokens_of_the_transformer(tiny, tmp_path):
    transformer = TransformerBackbone(tiny_transformer(width=24), "tiny", cells=4)
    path, image = tmp_path / "official.pth", _first_image(tiny)
    save_spherical_maps(SphericalMaps(24, 18), path)
    mapper = TrainedMapper(path)
    expected = mapper.points(transformer.raw([image])[0])
    alone = SphericalMapsBackbone(transformer, transformer, mapper).extract(image)
    torch.testing.assert_close(alone.values[-3:], 0.2**0.5 * expected)
    other = backbones.create("precomputed:sim", tiny)  # compared on its own grid, which lies otherwise on the image
    mixed = SphericalMapsBackbone(other, transformer, mapper).extract(image)
    assert mixed.values.shape == (19, 12, 12) and mixed.grid == other.extract(image).grid
    torch.testing.assert_close(mixed.values[-3:].norm(dim=0), torch.full((12, 12), 0.2**0.5))
    with pytest.raises(InputError, match="reads features before normalisation"):
        TrainedMapper.for_pictures(path, transformer)


@pytest.mark.slow
def test_eval_spair_with_kap_of_the_fused_similarity(tiny, mapper, tmp_path):
    backbone = f"spherical_maps:{mapper},features=precomputed:sim"
    options = ["--dataset", str(tiny), "--backbone", backbone, "--method", "spherical_maps", "--kap", "spherical", "--gallery", "0"]
    assert eval_spair([*options, "--preset", "later", "--output", str(tmp_path / "out")]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["config"]["method_settings"]["rounding"] == "later"
    assert results["protocol"]["kap"]["scores"].startswith("the method")
    assert results["all"]["pck"]["0.1"]["per_point"] > 30  # the tiny data set's features are mostly right
    assert results["all"]["kap"]["0.1"]["pooled_mean_of_categories"] > 0


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def mapper(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("mapper") / "mapper.safetensors"
    save_spherical_maps(SphericalMaps(16, 2), path, MapperFacts("sim", False))
    return path


def _first_image(root):
    from semalign3d_core.datasets.folder import FolderDataset

    record = FolderDataset(root).images("car")[0]
    return read_image(record.path, record)
