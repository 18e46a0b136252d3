"""Average precision of scored samples."""

import numpy as np

from semalign3d_core.runtime.errors import InputError


def average_precision(scores: np.ndarray | list[float], labels: np.ndarray | list[int]) -> float:
    """Step-wise, not interpolated average precision: sum of (recall_i - recall_{i-1}) * precision_i over distinct scores, descending.

    ``scores`` (n) finite floats, ``labels`` (n) 0 or 1; samples of equal score form one level. A sample of score ``-inf`` is never
    found: a positive one counts in the recall only. Without any positive sample the result is 0, with no sample at all NaN.
    """
    scores, labels = np.asarray(scores, np.float64).ravel(), np.asarray(labels).ravel().astype(bool)
    if scores.shape != labels.shape or not (scores < np.inf).all():
        raise InputError(f"average precision needs one finite score (or -inf) per label; got {scores.size} scores, {labels.size} labels")
    if not len(scores):
        return float("nan")
    if not labels.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")
    scores, labels = scores[order], labels[order]
    last_of_level = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    true_positives = np.cumsum(labels)[last_of_level]
    precision = np.where(np.isneginf(scores[last_of_level]), 0.0, true_positives / (last_of_level + 1))
    recall = true_positives / labels.sum()
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))
