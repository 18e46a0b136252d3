"""Section 6 of the measurements: images that are not as they should be."""

from dataclasses import replace

import pytest
import torch
from alignment_scores import keypoint_pck, mean, rotation_error

from semalign3d_core.calibration.perturbed_views import nothing_at_all, removed, scrambled, with_cut_mask
from semalign3d_core.geometry.mask_field import mask_box, square_around
from semalign3d_core.perception.evidence import DepthMap, FeatureMap
from semalign3d_core.pipeline import align_with_looks

SEEDS = range(60, 66)


def right(alignments, images):
    return mean(rotation_error(a, i) < 30 for a, i in zip(alignments, images, strict=True))


def pck(alignments, images):
    return mean(keypoint_pck(a, i) for a, i in zip(alignments, images, strict=True))


def test_truncated_objects(chair):
    category, aligner = chair
    images = [category.image(seed, truncated=0.35) for seed in SEEDS]
    alignments = [aligner.align(i.evidence) for i in images]
    assert right(alignments, images) >= 0.8 and pck(alignments, images) > 0.8


def test_cut_masks(chair):
    category, aligner = chair
    generator = torch.Generator().manual_seed(1)
    images = [category.image(seed) for seed in SEEDS]
    alignments = [aligner.align(with_cut_mask(i.evidence, generator)) for i in images]
    assert right(alignments, images) >= 0.8 and pck(alignments, images) > 0.75


class Looks:
    """Features of windows of an image whose features are known everywhere; keeps the windows that it is asked for."""

    def __init__(self, evidence):
        self.features, self.windows = evidence.features, []

    def again(self, evidence, window):
        return replace(evidence, features=self(window))

    def __call__(self, window):
        self.windows.append(window)
        grid = replace(self.features.grid, window=window)
        cells = self.features.grid.cells
        return FeatureMap(self.features.sample(grid.cell_centres()).T.unflatten(1, (cells, cells)), grid)


@pytest.mark.slow
def test_of_an_object_with_a_cut_mask_more_is_looked_at(chair):
    category, aligner = chair
    generator, narrow, wide = torch.Generator().manual_seed(1), [], []
    images = [category.image(seed) for seed in SEEDS]
    for image in images:
        cut, look = with_cut_mask(image.evidence, generator, 0.4), Looks(image.evidence)
        close = replace(cut, features=look(square_around(mask_box(cut.mask.numpy()), 0.1)))
        narrow.append(aligner.align(close))
        alignment, evidence = align_with_looks(aligner, close, look.again)
        wide.append(alignment)
        for window in look.windows[1:]:  # holds the first one
            first, other = (torch.tensor([[x, y], [x + side, y + side]]) for x, y, side in (look.windows[0], window))
            assert (other[0] <= first[0] + 1).all() and (other[1] >= first[1] - 1).all()
        assert evidence.features.grid.window in look.windows and evidence.mask is cut.mask
        assert alignment.confidence >= narrow[-1].confidence
        assert (evidence is close) == (alignment.confidence == narrow[-1].confidence)
    assert pck(wide, images) > pck(narrow, images) + 0.03


def test_one_look_is_enough_where_it_shows_the_object(chair):
    category, aligner = chair
    evidence = category.image(60).evidence
    look = Looks(evidence)
    close = replace(evidence, features=look(square_around(mask_box(evidence.mask.numpy()), 0.1)))
    alignment, same = align_with_looks(aligner, close, look.again)
    assert len(look.windows) == 1 and same is close and alignment.found
    alignment, same = align_with_looks(aligner, evidence, look.again)  # features of the whole image
    assert len(look.windows) == 1 and same is evidence and alignment.found


def test_no_mask(chair):
    category, aligner = chair
    images = [category.image(seed) for seed in SEEDS]
    alignments = [aligner.align(replace(i.evidence, mask=None)) for i in images]
    assert right(alignments, images) >= 0.8 and pck(alignments, images) > 0.8


def test_an_empty_mask_is_no_mask(chair):
    category, aligner = chair
    evidence = category.image(60).evidence
    empty = aligner.align(replace(evidence, mask=torch.zeros_like(evidence.mask)))
    assert torch.equal(empty.keypoints_3d, aligner.align(replace(evidence, mask=None)).keypoints_3d)


@pytest.mark.slow
def test_noisy_wrong_and_missing_depth(chair):
    category, aligner = chair
    images = [category.image(seed) for seed in SEEDS]
    generator = torch.Generator().manual_seed(0)

    def spoiled(evidence, number):
        noise = torch.rand(evidence.depth.values.shape, generator=generator)
        values = (noise, torch.full_like(noise, torch.nan), torch.zeros_like(noise))[number % 3]
        return replace(evidence, depth=DepthMap(values, evidence.depth.kind))

    alignments = [aligner.align(spoiled(i.evidence, n)) for n, i in enumerate(images)]
    assert right(alignments, images) == 1
    alignments = [aligner.align(replace(i.evidence, depth=None)) for i in images]
    assert right(alignments, images) >= 0.8


def test_metric_depth_of_holes_leaves_the_scale_open(chair):
    category, aligner = chair
    evidence = category.image(60, metric=1.0).evidence
    holes = DepthMap(torch.full_like(evidence.depth.values, torch.nan), "metric")
    assert aligner.align(replace(evidence, depth=holes)).scale_kind == "relative"


@pytest.mark.slow
def test_an_image_without_the_object_is_not_found(chair, monitor):
    (category, aligner), (other, _) = chair, monitor
    generator = torch.Generator().manual_seed(0)
    impossible = [scrambled(category.image(seed).evidence, generator) for seed in SEEDS] + [other.image(seed).evidence for seed in SEEDS]
    assert mean(aligner.align(e).found for e in impossible) < 0.2
    assert mean(aligner.align(category.image(seed).evidence).found for seed in SEEDS) == 1


def test_a_removed_object_leaves_its_surroundings_and_its_mask(chair):
    category, aligner = chair
    generator, evidence = torch.Generator().manual_seed(0), category.image(3).evidence
    gone = removed(evidence, generator)
    inside = evidence.features.grid.cells_inside(evidence.mask) > 0
    changed = (gone.features.values != evidence.features.values).any(0)
    assert changed[inside].all() and gone.mask is evidence.mask and changed.float().mean() < 0.8
    similarity = aligner.category.features[:120] @ gone.features.values[:, inside]
    assert similarity.amax(0).mean() < (aligner.category.features[:120] @ evidence.features.values[:, inside]).amax(0).mean() - 0.2
    assert nothing_at_all(evidence, generator).mask is None
    assert removed(replace(evidence, mask=None), generator).features is evidence.features


@pytest.mark.slow
def test_small_objects_are_looked_at_again(chair):
    category, aligner = chair
    images = [category.image(seed, size=(0.16, 0.25)) for seed in SEEDS]

    def sharper(seed):
        """What a window of the same image would show: the same object, large."""

        def look_again(evidence, window):
            left, top, side = window
            features = category.image(seed, size=(0.16, 0.25), crop=(left / 240, top / 240, side / 240)).evidence.features
            return replace(evidence, features=replace(features, grid=replace(evidence.features.grid, window=window)))

        return look_again

    plain = [aligner.align(i.evidence) for i in images]
    closer = [align_with_looks(aligner, i.evidence, sharper(s))[0] for s, i in zip(SEEDS, images, strict=True)]
    assert right(closer, images) == 1 and pck(closer, images) >= pck(plain, images)
    assert mean(keypoint_pck(a, i, 0.05) for a, i in zip(closer, images, strict=True)) > 0.6


@pytest.mark.slow
def test_keypoints_outside_of_the_image_are_not_visible_after_a_closer_look(chair):
    """The window around a small object at the image's edge reaches beyond the image."""
    category, aligner = chair
    outside = 0
    for seed in range(60, 72):
        where = {"size": (0.2, 0.25), "truncated": 0.5}

        def look_again(evidence, window, seed=seed, where=where):
            left, top, side = window
            features = category.image(seed, **where, crop=(left / 240, top / 240, side / 240)).evidence.features
            return replace(evidence, features=replace(features, grid=replace(evidence.features.grid, window=window)))

        alignment, evidence = align_with_looks(aligner, category.image(seed, **where).evidence, look_again)
        beyond = ((alignment.keypoints_2d < -0.5) | (alignment.keypoints_2d > 239.5)).any(1)
        outside += int(beyond.sum()) if evidence.features.grid.window is not None else 0
        assert not alignment.visible[beyond].any()
    assert outside > 5


def test_large_objects_are_looked_at_once(chair):
    category, aligner = chair
    evidence = category.image(60).evidence
    assert torch.equal(align_with_looks(aligner, evidence, None)[0].keypoints_3d, aligner.align(evidence).keypoints_3d)
