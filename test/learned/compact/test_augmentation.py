"""Views of training samples: picture, places and categories stay together whatever is done to them."""

from dataclasses import replace

import pytest
import torch

from semalign3d_core.learned.compact.augmentation import Augmentation, views
from semalign3d_core.learned.compact.samples import SampleSet

PLAIN = Augmentation(window=(1.0, 1.0), wide=1.0, turn=0.0, any_turn_rate=0.0, paste_rate=0.0, grey_rate=0.0, blur_rate=0.0)
PLACE = torch.tensor([0.25, 0.1, 0.2])


@pytest.fixture
def samples():
    """Dark pictures with a bright patch left of the middle, which lies at one place of the template; two categories."""
    pictures = torch.zeros(6, 3, 288, 288, dtype=torch.uint8)
    pictures[:, :, 96:192, 48:144] = 255
    canonical = torch.full((6, 3, 144, 144), torch.nan, dtype=torch.float16)
    canonical[:, :, 48:96, 24:72] = PLACE.half()[:, None, None]
    return SampleSet(pictures, canonical, torch.tensor([0, 0, 0, 1, 1, 1]))


def draw(samples, config, seed=0):
    return views(samples, torch.arange(6), 96, 4, config, torch.Generator().manual_seed(seed))


def bright(images):
    """(B, 24, 24) bool: cells brighter than the middle between the darkest and the brightest of their view."""
    cells = torch.nn.functional.avg_pool2d(images.mean(1, keepdim=True), 4)[:, 0]
    low, high = cells.amin((1, 2), keepdim=True), cells.amax((1, 2), keepdim=True)
    return cells > 0.7 * high + 0.3 * low


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [PLAIN, Augmentation(window=(0.8, 1.15), wide=0.8, turn=15.0, any_turn_rate=0.5, paste_rate=0.0, grey_rate=0.3, blur_rate=0.5)],
)
def test_picture_and_places_stay_together(samples, config):
    signs = set()
    for seed in range(4):
        images, canonical, labels = draw(samples, config, seed)
        assert images.shape == (6, 3, 96, 96) and canonical.shape == (6, 3, 24, 24) and labels.shape == (6, 24, 24)
        assert images.min() >= 0 and images.max() <= 1
        on_object = ~torch.isnan(canonical[:, 0])
        assert torch.equal(on_object, labels >= 0)
        both, either = (bright(images) & on_object).sum((1, 2)), (bright(images) | on_object).sum((1, 2))
        assert (both > 0.7 * either).all()
        for category, marked, places in zip(samples.labels, labels, canonical, strict=True):
            assert (marked[marked >= 0] == category).all()
            values = places[:, marked >= 0].T
            torch.testing.assert_close(values.abs(), PLACE.expand_as(values), atol=1e-3, rtol=0)
            signs.add(float(values[0, 0].sign()))
    assert signs == {-1.0, 1.0}  # mirrored views show the mirrored place


def test_close_views_show_the_object_and_its_margin(samples):
    """The patch, a third of the picture, fills the view but for the margin, wherever in the picture it is."""
    torch.testing.assert_close(samples.boxes, torch.tensor([[-1 / 3, 0.0, 1 / 3]]).expand(6, -1), atol=1e-3, rtol=0)
    for margin in (0.1, 0.25):
        _, canonical, _ = draw(samples, replace(PLAIN, close_rate=1.0, close_margin=(margin, margin)))
        on_object = ~torch.isnan(canonical[:, 0])
        assert (on_object.float().mean((1, 2)) - 1 / (1 + 2 * margin) ** 2).abs().max() < 0.08
        assert on_object[:, 12, 12].all()
    far = draw(samples, PLAIN)[1]
    assert (~torch.isnan(far[:, 0])).float().mean() < 0.2


def test_mirrored_views_are_mirror_images(samples):
    images, canonical, _ = draw(samples, PLAIN)
    columns = torch.arange(24.0)
    for seen, places in zip(bright(images), canonical, strict=True):
        middle = (seen.float().sum(0) * columns).sum() / seen.sum()
        mirrored = places[0].nan_to_num().sum() < 0
        assert (middle > 12) == mirrored  # the patch stands left of the middle in the picture itself


def test_pasted_objects_bring_their_own_labels(samples):
    config = Augmentation(**{**vars(PLAIN), "paste_rate": 1.0, "paste_window": (2.0, 3.0)})
    found = set()
    for seed in range(6):
        _, canonical, labels = draw(samples, config, seed)
        for own, marked, places in zip(samples.labels, labels, canonical, strict=True):
            found |= {int(c) != int(own) for c in marked[marked >= 0].unique()}
            assert torch.equal(~torch.isnan(places[0]), marked >= 0)
    assert found == {True, False}  # own object and, somewhere, one of the other category


def test_the_same_seed_gives_the_same_views(samples):
    for one, two in zip(draw(samples, Augmentation(), 3), draw(samples, Augmentation(), 3), strict=True):
        torch.testing.assert_close(one, two, equal_nan=True)


def test_another_background_leaves_the_object(samples):
    samples.photographs = torch.full((2, 3, 288, 288), 128, dtype=torch.uint8)
    plain = replace(PLAIN, window=(1.0, 1.0))
    before, canonical, _ = draw(samples, plain)
    for change in ({"photograph_rate": 1.0}, {"studio_rate": 1.0}):
        after, moved, _ = draw(samples, replace(plain, **change))
        on_object = ~torch.isnan(moved[:, 0])
        assert on_object.any() and not torch.equal(before, after)
        inside = torch.nn.functional.interpolate(on_object[:, None].float(), scale_factor=4)[:, 0] > 0
        spread = [torch.stack([image[:, where].std() for image, where in zip(after, mask, strict=True)]) for mask in (inside, ~inside)]
        assert (spread[0] < 0.2).all() and (spread[1] < 0.2).all()  # each is of one kind


def test_textures_and_compression_change_the_pictures_and_nothing_else(samples):
    samples.photographs = torch.randint(0, 255, (2, 3, 288, 288), generator=torch.Generator().manual_seed(5)).to(torch.uint8)
    for change in ({"texture_rate": 1.0}, {"jpeg_rate": 1.0}, {"gamma": 0.5}):
        images, canonical, labels = draw(samples, replace(PLAIN, **change))
        assert images.shape == (6, 3, 96, 96) and torch.isfinite(images).all() and images.min() >= 0 and images.max() <= 1
        assert torch.equal(~torch.isnan(canonical[:, 0]), labels >= 0) and (labels >= 0).any()
