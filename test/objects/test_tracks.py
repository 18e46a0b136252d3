"""Identities over crossing, occlusion and loss; proposals from labels and parts."""

import numpy as np
import pytest
import torch

from semalign3d_core.objects.categories import share_looks
from semalign3d_core.objects.proposals import MOST_OBJECTS, Proposal, proposals_of_labels, proposals_of_source
from semalign3d_core.objects.tracks import LOST, Tracks
from semalign3d_core.perception.evidence import ImageInput
from semalign3d_core.perception.masks import MaskSource


def box(x, y, size=60.0):
    return [x - size / 2, y - size / 2, x + size / 2, y + size / 2]


def play(paths, seconds=4.0, rate=15.0, hidden=lambda index, time: False, seed=0):
    """Numbers [(time, {index: number})] of objects of one kind each that move along ``paths`` (time -> x, y), in shuffled order."""
    tracks, random, history = Tracks(), np.random.default_rng(seed), []
    for step in range(int(seconds * rate)):
        time = step / rate
        seen = [index for index in range(len(paths)) if not hidden(index, time)]
        random.shuffle(seen)
        boxes = [box(*(np.array(paths[index][1](time)) + random.normal(0, 1.5, 2))) for index in seen]
        numbers = tracks.update(time, [paths[index][0] for index in seen], np.array(boxes))
        history.append((time, dict(zip(seen, numbers, strict=True))))
    return history


def switches(history):
    """How many objects have had more than one number."""
    indices = {index for _, found in history for index in found}
    return sum(len({found[index] for _, found in history if index in found}) > 1 for index in indices)


CROSSING = [
    ("mug", lambda t: (60 + 120 * t, 200)),
    ("mug", lambda t: (540 - 120 * t, 210)),
    ("bottle", lambda t: (300, 60 + 80 * t)),
]


@pytest.mark.parametrize("rate", [5, 15, 30])
def test_three_objects_of_two_categories_cross_without_a_switch(rate):
    assert switches(play(CROSSING, rate=rate)) == 0


def test_an_object_that_is_hidden_while_it_passes_behind_another_keeps_its_number():
    behind = [("mug", lambda t: (60 + 120 * t, 200)), ("mug", lambda t: (300, 205))]
    assert switches(play(behind, hidden=lambda index, time: index == 0 and 1.4 < time < 2.6)) == 0


def test_an_object_that_was_away_for_long_is_a_new_one_and_numbers_are_not_used_again():
    tracks = Tracks()
    assert tracks.update(0.0, ["mug"], [box(100, 100)]) == [1]
    assert tracks.update(LOST + 1, ["mug"], [box(100, 100)]) == [2]
    assert tracks.update(LOST + 1.1, ["bottle"], [box(100, 100)]) == [3]  # of another kind
    assert tracks.update(LOST + 1.2, ["mug", "mug"], [box(600, 100), box(102, 100)]) == [4, 2]
    assert tracks.update(LOST + 1.3, [], np.zeros((0, 4))) == []
    assert tracks.update(0.0, ["mug"], [box(102, 100)]) == [5]  # the recording began again


def test_every_label_of_a_mask_is_an_object_and_shades_are_one():
    labels = np.zeros((40, 60), np.int32)
    labels[5:25, 5:25], labels[10:20, 40:50] = 7, 3
    first, second = proposals_of_labels(labels)
    assert first.extent() == (4.5, 4.5, 24.5, 24.5) and int(second.mask.sum()) == 100
    shades = np.tile(np.arange(200, dtype=np.int32), (40, 1))
    (one,) = proposals_of_labels(shades)
    assert int(one.mask.sum()) == 40 * 199
    assert proposals_of_labels(np.zeros((4, 4), np.int32)) == []
    assert len(proposals_of_labels(np.arange(1, 41, dtype=np.int32).reshape(5, 8))) == MOST_OBJECTS


class Parts(MaskSource):
    name = "parts"

    def __init__(self, mask):
        self.mask = mask

    def segment(self, image, box=None, points=None):
        return self.mask


def test_larger_parts_of_a_mask_are_objects():
    image, mask = ImageInput(np.zeros((50, 80, 3), np.uint8)), torch.zeros(50, 80, dtype=torch.bool)
    assert proposals_of_source(image, None) == [Proposal()] and proposals_of_source(image, Parts(None)) == [Proposal()]
    mask[5:25, 5:25] = True
    assert proposals_of_source(image, Parts(mask)) == [Proposal()]
    mask[30:45, 50:65] = True
    mask[0:2, 70:72] = True  # too small
    boxes = [proposal.box for proposal in proposals_of_source(image, Parts(mask))]
    assert len(boxes) == 2 and boxes[0][0] <= 5 and boxes[0][2] >= 25


def test_categories_share_one_look_at_every_window():
    class Backbone:
        def __init__(self):
            self.looks = 0

        def extract(self, image):
            self.looks += 1
            return self.looks

    backbone = Backbone()
    share_looks(backbone)
    image = ImageInput(np.zeros((4, 4, 3), np.uint8))
    window = ImageInput(image.rgb, window=(0, 0, 2))
    assert [backbone.extract(one) for one in (image, window, image, window)] == [1, 2, 1, 2]
    assert backbone.extract(ImageInput(np.zeros((4, 4, 3), np.uint8))) == 3 and backbone.looks == 3
