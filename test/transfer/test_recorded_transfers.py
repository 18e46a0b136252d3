"""Small transfers in float64 with every preset, recorded with all that they return; see ``recorded.py``."""

from dataclasses import replace

import pytest
import torch
from recorded import check
from simulated_category import SimulatedCategory
from values import check_values

from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.runtime.config import load_preset
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.transfer.aligned_image import aligned_image, category_surface
from semalign3d_core.transfer.config import Transfer
from semalign3d_core.transfer.lift import Lifting, distinct_keypoints
from semalign3d_core.transfer.place import cycle_distance, likelihood_maps, place_points, transfer


@pytest.fixture(scope="module")
def pair():
    """(surface, aligned source, aligned target with few confidence, evidence): alignments by the fast preset, with all solutions."""
    category = SimulatedCategory("chair", channels=16, samples=3000)
    model = category.model(images=20, dense=150, modes=6).to(dtype=torch.float64)
    aligner, surface = Aligner(model), category_surface(model)

    def doubled(evidence):
        return replace(evidence, features=replace(evidence.features, values=evidence.features.values.double()))

    images = [doubled(category.image(seed).evidence) for seed in (3, 5)]
    alignments = [aligner.align(image) for image in images]
    scores = alignments[0].alternatives.scores
    close = replace(alignments[0].alternatives, scores=scores.min() + 0.02 * (scores - scores.min()) / (scores - scores.min()).max())
    alignments[0] = replace(alignments[0], alternatives=close)
    alignments[1] = replace(alignments[1], confidence=0.6)
    aligned = [aligned_image(surface, image, alignment) for image, alignment in zip(images, alignments, strict=True)]
    return surface, aligned[0], aligned[1], images


def described(image):
    """What the transfer knows of an image, without alignment and features."""
    names = ("keypoints", "places", "usable", "hidden", "occluded", "size", "penalty")
    return [{name: getattr(each, name) for name in names} for each in image.solutions]


QUERIES = torch.tensor([[100.0, 110], [120, 120], [140, 90], [90, 150], [150, 160], [128, 100]], dtype=torch.float64)


def test_values_do_not_change_and_are_short():
    check_values("semalign3d_core.transfer")


def test_aligned_images(pair):
    surface, source, target, images = pair
    turning = replace(source.alignment, undetermined_axis=torch.tensor([0.0, 1, 0]), alternatives=None)
    bare = replace(images[0], mask=None)
    check(
        "transfer_images",
        surface=surface,
        source=described(source),
        target=described(target),
        turning=described(aligned_image(surface, images[0], turning)),
        bare=described(aligned_image(surface, bare, source.alignment)),
    )
    assert len(source.solutions) > 1
    behind = replace(source.alignment, keypoints_3d=-source.alignment.keypoints_3d, alternatives=None)
    with pytest.raises(InputError, match="no point in front"):
        aligned_image(surface, images[0], behind)


@pytest.mark.parametrize("preset", ["fast", "keypoints", "reference"])
def test_presets(pair, preset):
    surface, source, target, _ = pair
    config = load_preset(Transfer, "transfer", preset)
    lifted = Lifting(surface, source, QUERIES, config).together
    backward = Lifting(surface, target, QUERIES, config).together
    check(
        f"transfer_{preset}",
        config=config,
        lifted=replace(lifted, readings=()),
        readings=[(reading.index, reading.misfit, reading.penalty, replace(reading.lift(), readings=())) for reading in lifted.readings],
        there=place_points(surface, lifted, target, config),
        back=place_points(surface, backward, source, config),
        maps=likelihood_maps(surface, lifted, target, config),
        cycle=cycle_distance(surface, source, target, QUERIES[:3], config),
    )


def test_single_settings(pair):
    surface, source, target, _ = pair
    settings = {
        "argmax": {"second_step": "argmax"},
        "unit": {"size_unit": None, "sigma": 0.05},
        "published": {"category_sigmas": {"chair": 0.04}},
        "alike": {"solution_similarity": 0.9},
        "hidden": {"hidden_penalty": 6.0},
        "no_own": {"own_feature": 0.0, "residual": 0.0},
        "projected": {"projection": 1.0},
        "semantic": {"semantic_weight": 3.0, "similarity_weight": 0.0},
    }
    found = {name: transfer(surface, source, target, QUERIES, replace(Transfer(), **given)) for name, given in settings.items()}
    known = Lifting(surface, source, QUERIES, Transfer(), [-1, 3, -1, 0, -1, -1]).together
    check("transfer_settings", **found, known=place_points(surface, known, target, Transfer()), lifted=replace(known, readings=()))


def test_groups_are_lifted_one_by_one(pair):
    """A point of two groups is lifted once, and is the same in both."""
    surface, source, _, _ = pair
    lifting = Lifting(surface, source, QUERIES, Transfer())
    first, second = lifting.rows(torch.tensor([0, 1, 2])), lifting.rows(torch.tensor([2, 5, 0]))
    torch.testing.assert_close(first.residual[[2, 0]], second.residual[[0, 2]])
    torch.testing.assert_close(second.residual, lifting.together.residual[[2, 5, 0]])
    assert first.index.tolist() == lifting.together.index[:3].tolist()


def test_different_queries_are_different_keypoints():
    """The best assignment, not the best of each; what is no keypoint may be had by all."""
    is_keypoint = torch.tensor([False, True, True])
    score = torch.tensor([[0.0, 5, 4], [0.0, 5, 1], [2.0, 1, 1]])
    assert distinct_keypoints(score, is_keypoint, 0.0).tolist() == [2, 1, 0]
    assert distinct_keypoints(score, is_keypoint, -9.0).tolist() == [0, 0, 0]
    assert distinct_keypoints(score[:2], is_keypoint, 1.0).tolist() == [2, 1]


@pytest.mark.parametrize("wrong", [{"sigma": 0.0}, {"target_sigma": -1.0}, {"uncertain_widening": 0.0}, {"size_unit": -0.1}])
def test_spreads_must_be_positive(wrong):
    with pytest.raises(InputError, match="must be positive"):
        Transfer(**wrong)
