"""Masks from similarity to a category model: with sharp and dull features, odd sizes, other grids, nothing to find."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from simulated_category import SimulatedCategory

from semalign3d_core.category.storage import load_model, save_model
from semalign3d_core.geometry.image_grid import SquareGrid
from semalign3d_core.perception import masks
from semalign3d_core.perception.backbones import FeatureBackbone
from semalign3d_core.perception.evidence import FeatureMap, ImageInput
from semalign3d_core.perception.look import look
from semalign3d_core.perception.masks.similarity import SimilarityConfig, SimilarityMasks
from semalign3d_core.runtime.errors import InputError

CHANNELS = 24


def scene(height=120, width=160, radius=30, centre=(70, 55), padding="bottom_right", common=0.0, noise=0.2, seed=0):
    """(model, features, image, truth): a disc of the category before clutter; ``common`` makes all cosines large."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    truth = (columns - centre[0]) ** 2 + (rows - centre[1]) ** 2 < radius**2
    grid = SquareGrid(height, width, 40, padding)
    inside = (grid.cells_inside(torch.from_numpy(truth)) > 0.5).numpy()
    directions = rng.normal(size=(6, CHANNELS))
    offset = common * rng.normal(size=CHANNELS) * 2
    part = (np.arange(40)[None] // 7 + np.arange(40)[:, None] // 7) % 6
    values = np.where(inside[..., None], directions[part], rng.normal(size=(8, CHANNELS))[rng.integers(0, 8, (40, 40))])
    values = values + noise * rng.normal(size=values.shape) + offset
    features = torch.nn.functional.normalize(torch.from_numpy(values).float().permute(2, 0, 1), dim=0)
    dense = torch.nn.functional.normalize(torch.from_numpy(directions + offset).float(), dim=1)
    colours = np.where(truth[..., None], (200, 60, 40), (60, 90, 120)) + rng.integers(-15, 16, (height, width, 3))
    image = ImageInput(colours.clip(0, 255).astype(np.uint8))
    return SimpleNamespace(dense_features=dense), FeatureMap(features, grid), image, torch.from_numpy(truth)


def overlap(found, truth):
    return 0.0 if found is None else ((found & truth).sum() / (found | truth).sum()).item()


@pytest.mark.parametrize("padding", ["bottom_right", "centre", "canvas"])
@pytest.mark.parametrize("common", [0.0, 1.0, 3.0])
def test_the_object_is_found_whatever_the_level_of_the_cosines(padding, common):
    model, features, image, truth = scene(padding=padding, common=common)
    found = SimilarityMasks(model).segment_features(features, image)
    assert found.shape == truth.shape and found.dtype == torch.bool
    assert overlap(found, truth) > 0.93


@pytest.mark.parametrize("size, radius, centre", [((121, 77), 20, (40, 60)), ((60, 200), 25, (30, 30)), ((90, 90), 44, (45, 45))])
def test_odd_sizes_and_borders(size, radius, centre):
    model, features, image, truth = scene(*size, radius, centre)
    assert overlap(SimilarityMasks(model).segment_features(features, image), truth) > 0.85


def test_colours_improve_the_outline_and_can_be_left_out():
    model, features, image, truth = scene()
    coarse = SimilarityMasks(model, config=SimilarityConfig(band=0)).segment_features(features, image)
    refined = SimilarityMasks(model).segment_features(features, image)
    assert 0.8 < overlap(coarse, truth) < overlap(refined, truth)


def test_a_picture_of_one_colour_does_not_lose_the_object():
    model, features, image, truth = scene()
    grey = ImageInput(np.full_like(image.rgb, 128))
    assert overlap(SimilarityMasks(model).segment_features(features, grey), truth) > 0.6


def test_mirroring_mirrors_the_mask():
    model, features, image, truth = scene(120, 120)
    found = SimilarityMasks(model).segment_features(features, image)
    mirrored = SimilarityMasks(model).segment_features(FeatureMap(features.values.flip(2), features.grid), image.mirror())
    assert overlap(mirrored.flip(1), found) > 0.97


def test_the_same_image_gives_the_same_mask():
    model, features, image, _ = scene()
    first = SimilarityMasks(model).segment_features(features, image)
    assert torch.equal(SimilarityMasks(model).segment_features(features, image), first)


def test_a_box_limits_the_search():
    model, features, image, truth = scene()
    found = SimilarityMasks(model, config=SimilarityConfig(band=0)).segment_features(features, image, box=(0, 0, 60, 119))
    assert not found[:, 61:].any() and overlap(found, truth & (torch.arange(160) <= 60)) > 0.75


def test_features_without_any_difference_find_nothing():
    model, features, image, _ = scene()
    flat = FeatureMap(torch.ones_like(features.values) / CHANNELS**0.5, features.grid)
    masks_of_model = SimilarityMasks(model)
    assert masks_of_model.segment_features(flat, image) is None
    assert masks_of_model.prompts(flat, image) == (None, None)


def test_prompts_lie_on_the_object():
    model, features, image, truth = scene()
    box, points = SimilarityMasks(model).prompts(features, image)
    rows, columns = truth.nonzero(as_tuple=True)
    expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert np.abs(np.array(box) - np.array([int(v) for v in expected])).max() <= 6
    assert all(truth[int(round(y)), int(round(x))] for x, y in points)


class Backbone(FeatureBackbone):
    name, channels, calls = "stub", CHANNELS, 0

    def __init__(self, features):
        self.found = features

    def extract(self, image):
        self.calls += 1
        return self.found


def test_gathering_evidence_extracts_features_once():
    model, features, image, truth = scene()
    backbone = Backbone(features)
    evidence = look(image, backbone, mask_source=masks.create("similarity", model=model))
    assert backbone.calls == 1 and overlap(evidence.mask, truth) > 0.93
    alone = masks.create("similarity", model=model, backbone=backbone)
    assert torch.equal(alone.segment(image), evidence.mask)


@pytest.fixture
def model_file(tmp_path):
    """A category model on disk, of the backbone ``sim``."""
    path = tmp_path / "chair.safetensors"
    save_model(replace(SimulatedCategory("chair").model(), backbone="sim"), path)
    return path


def test_a_model_can_be_given_as_a_file(model_file):
    image = SimulatedCategory("chair").image(0).evidence
    backbone = Backbone(image.features)
    backbone.name = "sim"
    given = masks.create(f"similarity:{model_file}", backbone=backbone, load_model=load_model)
    picture = ImageInput(np.zeros((*image.mask.shape, 3), np.uint8))
    found = given.segment(picture)
    assert overlap(found, image.mask) > 0.5
    assert torch.equal(SimilarityMasks(load_model(model_file)).segment_features(image.features, picture), found)
    backbone.name = "other"
    with pytest.raises(InputError, match=r"chair\.safetensors was built with the backbone 'sim', not with 'other'"):
        masks.create(f"similarity:{model_file}", backbone=backbone, load_model=load_model)


@pytest.mark.slow
def test_a_model_given_as_a_file_prompts_sam(model_file, tmp_path):
    pytest.importorskip("transformers", reason="needs the extra hf")
    from tiny_models import tiny_sam

    tiny_sam().save_pretrained(tmp_path / "sam")
    provider = masks.create(f"sam:{tmp_path / 'sam'},device=cpu,prompt_model={model_file}", load_model=load_model)
    assert provider.name.endswith("+similarity")
    image = SimulatedCategory("chair").image(0).evidence
    picture = ImageInput(np.random.default_rng(0).integers(0, 256, (*image.mask.shape, 3), dtype=np.uint8))
    box, points = provider.prompter.prompts(image.features, picture)
    expected, found = provider.segment(picture, box=box, points=points), provider.segment_features(image.features, picture)
    assert (expected is None and found is None) or torch.equal(expected, found)


def test_what_is_missing_is_said():
    model, _, image, _ = scene()
    with pytest.raises(InputError, match="need a category model"):
        masks.create("similarity")
    with pytest.raises(InputError, match="need the features"):
        masks.create("similarity", model=model).segment(image)
