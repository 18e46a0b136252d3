import numpy as np
import pytest

from semalign3d_core.metrics.average_precision import average_precision
from semalign3d_core.metrics.kap import KAP_VARIANTS, KapAccumulator, KapPair, kap_samples
from semalign3d_core.runtime.errors import InputError

CELLS, SIDE = 10, 100


def pair_at(targets, peaks, target_visible=None, source_visible=None):
    """A pair whose similarity of keypoint k is 1 at cell ``peaks[k]`` (column, row) and 0.1 elsewhere."""
    similarity = np.full((len(targets), CELLS, CELLS), 0.1)
    for k, (column, row) in enumerate(peaks):
        similarity[k, row, column] = 1
    seen = [np.ones(len(targets), bool) if v is None else np.array(v, bool) for v in (source_visible, target_visible)]
    return KapPair(similarity.reshape(len(targets), -1), np.array(targets, float), *seen, 100.0, SIDE)


def brute_force_ap(scores, labels):
    """Area under the step curve, threshold by threshold."""
    total, previous = 0.0, 0.0
    for level in sorted(set(scores), reverse=True):
        chosen = np.array(scores) >= level
        recall = np.array(labels)[chosen].sum() / sum(labels)
        total += (recall - previous) * np.array(labels)[chosen].mean()
        previous = recall
    return total


def test_average_precision_agrees_with_its_definition():
    rng = np.random.default_rng(1)
    for _ in range(50):
        scores, labels = np.round(rng.random(30), 1), rng.integers(0, 2, 30)
        labels[0] = 1
        assert average_precision(scores, labels) == pytest.approx(brute_force_ap(scores, labels))


def test_average_precision_at_the_edges():
    assert average_precision([3, 2, 1], [1, 1, 0]) == 1.0
    assert average_precision([0.5, 0.5], [1, 0]) == 0.5
    assert average_precision([1.0], [0]) == 0.0 and np.isnan(average_precision([], []))
    assert average_precision([2, 1, -np.inf], [1, 0, 1]) == 0.5 and average_precision([-np.inf, -np.inf], [1, 1]) == 0.0  # never found
    with pytest.raises(InputError, match="finite"):
        average_precision([np.nan], [1])
    with pytest.raises(InputError, match="finite"):
        average_precision([np.inf], [1])


@pytest.mark.parametrize("variant", KAP_VARIANTS)
def test_peaks_on_the_targets_give_one_and_peaks_elsewhere_less(variant):
    right, wrong = pair_at([(20, 30), (70, 80)], [(2, 3), (7, 8)]), pair_at([(20, 30), (70, 80)], [(7, 8), (2, 3)])
    scores = []
    for pair in (right, wrong):
        accumulator = KapAccumulator([0.1], variant)
        accumulator.add("cat", pair)
        scores.append(accumulator.category_summary("cat")["kap"]["0.1"]["pooled"])
    assert scores[0] == 100 and scores[1] < 60


def test_a_confident_match_of_an_invisible_target_costs_precision():
    """A peak anywhere is a false alarm when the target does not show the keypoint."""
    quiet = pair_at([(20, 30), (0, 0)], [(2, 3), (5, 5)], target_visible=[1, 0])
    scores, labels = kap_samples(quiet, 0.1, "visible_only")
    assert labels.tolist() == [1, 0, 0] and scores.tolist() == [1, 0, 1]
    released, labels = kap_samples(quiet, 0.1, "as_released")
    assert labels.tolist() == [1, 0, 1, 0] and released.tolist() == [1, 0, 0, 1]


def test_keypoints_that_the_source_does_not_show_give_no_sample():
    pair = pair_at([(20, 30), (70, 80)], [(2, 3), (7, 8)], source_visible=[1, 0])
    for variant in KAP_VARIANTS:
        assert len(kap_samples(pair, 0.1, variant)[0]) == 2


def test_only_the_first_release_has_a_nearest_cell_rule():
    """With a radius smaller than a cell no cell index lies near, but the nearest cell still counts in the first release."""
    pair = pair_at([(24, 36)], [(2, 4)])
    assert kap_samples(pair, 0.01, "spherical")[0].tolist() == [1, 0]
    assert kap_samples(pair, 0.01, "visible_only")[0].tolist() == [0, 1]


def test_pooled_and_per_image_are_both_reported_with_weights():
    accumulator = KapAccumulator([0.1], "visible_only")
    accumulator.add("cat", pair_at([(20, 30)], [(2, 3)]))
    accumulator.add("cat", pair_at([(20, 30)], [(9, 9)]))
    accumulator.add("dog", pair_at([(20, 30), (70, 80)], [(2, 3), (7, 8)]))
    assert accumulator.add("dog", pair_at([(20, 30)], [(2, 3)], source_visible=[0])) is None
    summary = accumulator.summary()
    over_all = summary["all"]["kap"]["0.1"]
    cat, dog = (summary["per_category"][c]["kap"]["0.1"] for c in ("cat", "dog"))
    assert summary["variant"] == "visible_only" and summary["all"]["skipped"] == 1
    assert cat["per_image"] == pytest.approx(75) and cat["pooled"] == pytest.approx(50)
    assert over_all["per_image_pair_weighted"] == pytest.approx((2 * cat["per_image"] + dog["per_image"]) / 3)
    assert over_all["pooled_point_weighted"] == pytest.approx((2 * cat["pooled"] + 2 * dog["pooled"]) / 4)
    assert over_all["pooled_mean_of_categories"] == pytest.approx((cat["pooled"] + dog["pooled"]) / 2)


def test_bad_input_is_named():
    with pytest.raises(InputError, match="KAP variant"):
        KapAccumulator([0.1], "typo")
    with pytest.raises(InputError, match="finite"):
        KapPair(np.full((1, 4), np.nan), np.zeros((1, 2)), [True], [True], 1.0, 10)
    with pytest.raises(InputError, match="square"):
        KapPair(np.zeros((1, 5)), np.zeros((1, 2)), [True], [True], 1.0, 10)


def test_constant_similarity_is_no_information():
    pair = KapPair(np.full((2, 16), 0.3), np.zeros((2, 2)), np.ones(2, bool), np.ones(2, bool), 10.0, 40)
    assert kap_samples(pair, 0.1)[0].tolist() == [0, 0, 0, 0]
