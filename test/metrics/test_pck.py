import numpy as np
import pytest
from published.metrics import error_kinds

from semalign3d_core.metrics.pck import (
    nearest_is_own,
    pck_correct,
    pck_correct_inclusive,
    pck_dagger_correct,
    pck_dagger_correct_inclusive,
)


@pytest.fixture
def random_pairs():
    rng = np.random.default_rng(3)
    truth = rng.uniform(0, 200, (20, 7, 2))
    pred = truth + rng.normal(0, 15, truth.shape)
    return pred, truth, rng.random((20, 7)) < 0.7, rng.uniform(80, 150, 20)


def test_an_error_of_exactly_the_threshold_is_wrong_only_with_the_strict_comparison():
    pred, truth = np.array([[30.0, 40.0], [29.0, 40.0]]), np.zeros((2, 2))
    assert pck_correct(pred, truth, 500, [0.1]).ravel().tolist() == [False, True]
    assert pck_correct_inclusive(pred, truth, 500, [0.1]).ravel().tolist() == [True, True]


def test_leading_axes_and_alphas_broadcast(random_pairs):
    pred, truth, _, threshold = random_pairs
    correct = pck_correct(pred, truth, threshold, [0.1, 0.05])
    assert correct.shape == (20, 7, 2)
    for i in range(20):
        distance = np.hypot(*(pred[i] - truth[i]).T)
        assert (correct[i, :, 1] == (distance < 0.05 * threshold[i])).all()


def test_a_missing_prediction_is_wrong_and_does_not_disturb_the_others(random_pairs):
    pred, truth, common, threshold = random_pairs
    whole = pck_dagger_correct(pred, truth, common, threshold, [0.1])
    pred = pred.copy()
    pred[:, 2] = np.nan
    damaged = pck_dagger_correct(pred, truth, common, threshold, [0.1])
    assert not damaged[:, 2].any()
    others = np.arange(7) != 2
    assert (damaged[:, others] == whole[:, others]).all()


def test_dagger_refuses_the_right_point_when_another_common_keypoint_is_nearer():
    truth, pred = np.array([[0.0, 0.0], [4.0, 0.0]]), np.array([[3.0, 0.0], [4.0, 0.0]])
    assert pck_correct(pred, truth, 100, [0.1]).all()
    assert pck_dagger_correct(pred, truth, [True, True], 100, [0.1]).ravel().tolist() == [False, True]
    assert pck_dagger_correct(pred, truth, [True, False], 100, [0.1])[0, 0], "a keypoint of one image only must not compete"


def test_half_way_between_two_targets_the_first_label_wins():
    truth, pred = np.array([[0.0, 0.0], [8.0, 0.0]]), np.array([[4.0, 0.0], [4.0, 0.0]])
    assert nearest_is_own(pred, truth, [True, True]).tolist() == [True, False]


def test_dagger_is_never_more_than_pck(random_pairs):
    pred, truth, common, threshold = random_pairs
    alphas = [0.2, 0.1, 0.05]
    plain = pck_correct(pred, truth, threshold, alphas) & common[..., None]
    dagger = pck_dagger_correct(pred, truth, common, threshold, alphas)
    assert (dagger <= plain).all() and dagger.sum() < plain.sum()
    assert (dagger <= pck_dagger_correct_inclusive(pred, truth, common, threshold, alphas)).all()


def test_a_pair_without_keypoints_has_no_marks():
    nothing, none = np.zeros((0, 2)), np.zeros(0, bool)
    assert pck_correct(nothing, nothing, 10.0, [0.1, 0.2]).shape == (0, 2)
    assert pck_dagger_correct(nothing, nothing, none, 10.0, [0.1]).shape == (0, 1)
    assert nearest_is_own(np.zeros((3, 0, 2)), np.zeros((3, 0, 2)), np.zeros((3, 0), bool)).shape == (3, 0)
    assert all(mark.shape == (0,) for mark in error_kinds(nothing, nothing, none, 10.0, 0.1).values())


def test_a_single_keypoint_has_no_rival():
    truth = np.array([[5.0, 5.0]])
    for pred, right in (([[5.0, 14.9]], True), ([[5.0, 15.0]], False)):  # strictly less than 0.1 x 100
        assert pck_dagger_correct(np.array(pred), truth, [True], 100, [0.1]).item() is right
        assert pck_correct(np.array(pred), truth, 100, [0.1]).item() is right


def test_error_kinds_of_constructed_cases():
    truth = np.array([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0], [100.0, 100.0]])
    pred = np.array([[1.0, 0.0], [0.0, 2.0], [15.0, 100.0], [50.0, 50.0]])  # right, swapped, jitter, nowhere
    kinds = error_kinds(pred, truth, np.ones(4, bool), 100.0, 0.1)
    assert kinds["swap"].tolist() == [False, True, False, False]
    assert kinds["jitter"].tolist() == [False, False, True, False]
    assert kinds["miss"].tolist() == [False, False, True, True]
