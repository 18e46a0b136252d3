"""Masks of the embedded backbone: the pixels it takes for the category, wherever its features come from."""

import numpy as np
import pytest
import torch

from semalign3d_core.geometry.image_grid import SquareGrid
from semalign3d_core.geometry.mask_field import mask_box
from semalign3d_core.perception import masks
from semalign3d_core.perception.backbones import FeatureBackbone
from semalign3d_core.perception.backbones.compact import CompactBackbone
from semalign3d_core.perception.cached_providers import CachedMasks
from semalign3d_core.perception.evidence import FeatureMap, ImageInput
from semalign3d_core.perception.look import look
from semalign3d_core.perception.masks.compact import CompactMasks, strongest_parts
from semalign3d_core.runtime.cache import Cache
from semalign3d_core.runtime.errors import InputError


class Marked(FeatureBackbone):
    """A stand-in for the backbone: red pixels are of the first category, green ones of the second, all others background."""

    name, categories = "marked", ("mug", "car")

    def __init__(self):
        self.extracted = 0

    def extract(self, image):
        self.extracted += 1
        grid = SquareGrid(image.height, image.width, 32)
        cells = torch.nn.functional.interpolate(torch.from_numpy(image.rgb).permute(2, 0, 1)[None].float() / 255, size=(32, 32))[0]
        return FeatureMap(cells, grid)

    def class_probabilities(self, features):
        red, green, _ = features.values
        return torch.stack([1 - red - green, red, green]).clamp(0.001, 0.998)


def picture():
    rgb = np.zeros((64, 64, 3), np.uint8)
    rgb[10:30, 8:40, 0] = 255
    rgb[40:60, 30:60, 1] = 255
    rgb[2:4, 60:62, 0] = 255  # too small a part to count
    return ImageInput(rgb)


@pytest.mark.parametrize("category, where", [("mug", np.s_[10:30, 8:40]), ("car", np.s_[40:60, 30:60])])
def test_mask_is_that_of_the_category(category, where):
    mask = CompactMasks(Marked(), category).segment(picture())
    truth = torch.zeros(64, 64, dtype=torch.bool)
    truth[where] = True
    assert (mask & truth).sum() > 0.85 * truth.sum() and (mask & ~truth).sum() < 0.15 * truth.sum()


def test_of_an_unknown_category_everything_that_is_no_background_counts():
    mask = CompactMasks(Marked(), "valve").segment(picture())
    assert mask[20, 20] and mask[50, 50] and not mask[50, 10]


def test_box_limits_the_search_and_nothing_is_none():
    source = CompactMasks(Marked(), "mug")
    assert source.segment(picture(), box=(0, 34, 26, 63)) is None
    assert source.segment(ImageInput(np.zeros((20, 30, 3), np.uint8))) is None


def test_what_is_taken_for_an_object_of_another_category_counts_where_nothing_better_is_there():
    mask = CompactMasks(Marked(), "mug").segment(picture(), box=(0, 34, 63, 63))
    assert mask[50, 50] and not mask[20, 20] and not mask[50, 10]


def test_features_are_extracted_again_only_where_they_are_others():
    backbone = Marked()
    features = backbone.extract(picture())
    shared = CompactMasks(backbone, "mug", shared=True).segment_features(features, picture())
    assert backbone.extracted == 1
    own = CompactMasks(backbone, "mug").segment_features("of another backbone", picture())
    assert backbone.extracted == 2 and torch.equal(own, shared)


class Coarse(Marked):
    """Eight cells, of the picture or of the object's surroundings."""

    close_up = 0.25

    def __init__(self):
        super().__init__()
        self.glances = 0

    def extract(self, image):
        self.extracted += 1
        return self._seen(image)

    def _seen(self, image):
        grid = SquareGrid(image.height, image.width, 8, window=image.window)
        square = grid.square(torch.from_numpy(image.rgb.transpose(2, 0, 1).copy()).float() / 255)
        return FeatureMap(torch.nn.functional.interpolate(square[None], size=(8, 8), mode="area")[0], grid)

    def glance(self, image):
        self.glances += 1
        seen = self._seen(image)
        return seen.grid, self.class_probabilities(seen)


def square_object(row, column, side=15):
    rgb, truth = np.zeros((64, 64, 3), np.uint8), torch.zeros(64, 64, dtype=torch.bool)
    truth[row : row + side, column : column + side] = True
    rgb[truth.numpy(), 0] = 255
    return ImageInput(rgb), truth


def overlap(mask, truth):
    return float((mask & truth).sum() / (mask | truth).sum())


def test_a_closer_look_gives_a_finer_mask():
    image, truth = square_object(29, 21)
    backbone = Coarse()
    source = CompactMasks(backbone, "mug", shared=True)
    coarse = source.segment(image)
    evidence = look(image, backbone, mask_source=source)
    assert overlap(coarse, truth) < 0.8 and overlap(evidence.mask, truth) > 0.9
    assert (backbone.extracted, backbone.glances) == (2, 1) and evidence.features.grid.window is not None
    assert not (evidence.mask & ~evidence.features.grid.covered()).any()
    with_given = look(image, backbone, mask_source=source, mask=coarse)
    assert with_given.mask is coarse and (backbone.extracted, backbone.glances) == (3, 1)  # what is given stays


@pytest.mark.parametrize(
    "row, column, side, looks",
    [
        (30, 22, 15, (1, 0)),  # nearly where it was
        (39, 31, 15, (2, 1)),  # so far away that the square shows a part of it
        (2, 44, 15, (2, 1)),  # gone from there
        (32, 24, 8, (2, 1)),  # much smaller: would have too few cells
    ],
)
def test_an_object_is_first_looked_for_where_it_was(row, column, side, looks):
    backbone, (image, truth) = Coarse(), square_object(row, column, side)
    evidence = look(image, backbone, mask_source=CompactMasks(backbone, "mug", shared=True), last_box=(20.5, 28.5, 35.5, 43.5))
    assert (backbone.extracted, backbone.glances) == looks and overlap(evidence.mask, truth) > 0.75


def test_what_the_picture_cuts_is_followed_too():
    backbone, (image, truth) = Coarse(), square_object(20, 54, 15)
    evidence = look(image, backbone, mask_source=CompactMasks(backbone, "mug", shared=True), last_box=mask_box(truth.numpy()))
    assert backbone.glances == 0 and overlap(evidence.mask, truth) > 0.75


def test_a_cached_glance_is_not_taken_for_a_look(tmp_path):
    backbone, (image, _) = Coarse(), square_object(29, 21)
    cached = CachedMasks.wrap(CompactMasks(backbone, "mug", shared=True), "compact", Cache(tmp_path))
    plain = look(image, Coarse(), mask_source=CompactMasks(Coarse(), "mug", shared=True))
    for _ in range(2):
        assert torch.equal(look(image, backbone, mask_source=cached).mask, plain.mask)
    assert backbone.glances == 1


def test_a_detected_box_is_looked_at_at_once_and_stands_in_for_a_mask_that_does_not_fill_it():
    backbone, (image, truth) = Coarse(), square_object(29, 21)
    source = CompactMasks(backbone, "mug", shared=True)
    evidence = look(image, backbone, mask_source=source, detection=(20, 28, 37, 45))
    assert (backbone.extracted, backbone.glances) == (1, 0) and overlap(evidence.mask, truth) > 0.75
    evidence = look(image, backbone, mask_source=source, detection=(10, 20, 50, 60))
    assert evidence.mask.sum() == 40 * 40 and evidence.mask[20:60, 10:50].all()
    assert look(image, backbone, detection=(10, 20, 50, 60)).mask.sum() == 40 * 40  # no mask source at all
    with pytest.raises(InputError, match="outside"):
        look(image, backbone, mask_source=source, detection=(70, 70, 90, 90))


def test_what_a_closer_look_loses_stays_as_it_was():
    class Loses(CompactMasks):
        def segment_features(self, features, image, box=None, points=None):
            return None if image.window is not None else super().segment_features(features, image, box, points)

    backbone = Coarse()
    evidence = look(picture(), backbone, mask_source=Loses(backbone, "mug", shared=True))
    assert evidence.mask is not None and evidence.features.grid.window is not None


def test_parts_behind_an_occluder_stay_and_specks_go():
    evidence = -np.ones((40, 40), np.float32)
    evidence[5:20, 5:15] = evidence[5:20, 20:25] = 1
    evidence[30:32, 30:32] = 1
    mask = strongest_parts(evidence, lambda: np.ones_like(evidence))
    assert mask[10, 10] and mask[10, 22] and not mask[31, 31]


def test_created_by_name_with_the_embedded_backbone():
    backbone = CompactBackbone()
    for spec in ("compact", "auto"):
        source = masks.create(spec, backbone=backbone)
        assert isinstance(source, CompactMasks) and source.shared and source.backbone is backbone


class Told:
    """A finder that is told where the object is."""

    def __init__(self, place):
        self.place, self.asked = place, 0

    def search(self, image):
        self.asked += 1
        return self.place


def two_squares():
    """A large red square and a small one, both of the first category, for :class:`Coarse`."""
    rgb = np.zeros((64, 64, 3), np.uint8)
    rgb[4:28, 4:28, 0] = rgb[44:54, 44:54, 0] = 255
    return ImageInput(rgb)


def test_around_a_place_more_is_looked_at_until_all_of_the_object_is_seen():
    image, backbone = two_squares(), Coarse()
    source = CompactMasks(backbone, "mug", shared=True)
    assert look(image, backbone, mask_source=source).mask[16, 16]
    mask = look(image, backbone, mask_source=source, place=(43, 43, 47, 47)).mask  # a corner of the small square
    truth = torch.zeros(64, 64, dtype=torch.bool)
    truth[44:54, 44:54] = True
    assert (mask & truth).sum() > 0.7 * (mask | truth).sum()


def test_a_cached_search_asks_the_finder_once(tmp_path):
    image, backbone, told = two_squares(), Coarse(), Told((43, 43, 47, 47))
    assert CompactMasks(backbone, "mug").search(image) is None
    cached = CachedMasks.wrap(CompactMasks(backbone, "mug", shared=True, finder=told), "compact", Cache(tmp_path))
    assert cached.search(image) == cached.search(image) == (43, 43, 47, 47) and told.asked == 1
