"""What the confidence of an alignment is worth: on easy and hard images, and on images without the object."""

from dataclasses import replace

import cv2
import numpy as np
import torch
from alignment_scores import calibration_error, score_of
from torch.nn.functional import normalize
from tqdm import tqdm

from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.calibration.confidence_maps import RIGHT_SHARE
from semalign3d_core.calibration.logistic import area_under_roc
from semalign3d_core.perception.evidence import FeatureMap

EACH = 12  # images of every kind and category
BINS = 8


def mixed(scenes, name, store):
    """Scenes of all kinds.

    As they are, truncated, small, occluded, and three kinds of damage that calibration does not make: features with noise of several
    strengths, blurred features, and masks that lack a corner.
    """
    tests = scenes[name][: 2 * EACH] + [scene for kind in ("truncated", "small", "occluded") for scene in store.scenes(name, kind, EACH)]
    plain = scenes[name]
    for n in range(EACH):
        tests.append(_changed(plain[n % len(plain)], _noisy(plain[n % len(plain)].evidence, 0.6 + 0.25 * n)))
        tests.append(_changed(plain[(n + 5) % len(plain)], _blurred(plain[(n + 5) % len(plain)].evidence, 1.0 + 0.4 * n)))
        tests.append(store.seen(_changed(plain[(n + 9) % len(plain)], _without_corner(plain[(n + 9) % len(plain)].evidence, n))))
    return tests


def without_object(scenes, name, store):
    """(kind, evidence) of images that do not show the category."""
    others = [other for other in scenes if other != name]
    for n in range(EACH):
        evidence = scenes[others[n % len(others)]][n].evidence if others else None
        if evidence is not None:
            yield "another category", evidence
            yield "another category, no mask", store.with_mask(evidence, None)
        scene = scenes[name][n]
        empty = store.without_object(scene)
        yield "background, no mask", store.with_mask(empty, None)
        yield "background, mask of the object", empty
        yield "background, mask of a blob", store.with_mask(empty, _blob(empty.mask.shape, n))


def _changed(scene, evidence):
    return replace(scene, evidence=evidence)


def _with_values(evidence, values):
    return replace(evidence, features=FeatureMap(normalize(values, dim=0), evidence.features.grid))


def _noisy(evidence, strength):
    values = evidence.features.values
    noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(round(100 * strength)))
    return _with_values(evidence, values + strength * noise / len(values) ** 0.5)


def _blurred(evidence, cells):
    values = [cv2.GaussianBlur(channel, (0, 0), cells) for channel in evidence.features.values.numpy()]
    return _with_values(evidence, torch.from_numpy(np.stack(values)))


def _without_corner(evidence, number):
    rng, mask = np.random.default_rng(number), evidence.mask.numpy().copy()
    rows, columns = np.nonzero(mask)
    side = rng.uniform(0.45, 0.75, 2) * [np.ptp(rows), np.ptp(columns)]
    row = rows.min() if rng.random() < 0.5 else rows.max() - side[0]
    column = columns.min() if rng.random() < 0.5 else columns.max() - side[1]
    mask[round(row) : round(row + side[0]) + 1, round(column) : round(column + side[1]) + 1] = False
    return replace(evidence, mask=torch.from_numpy(mask if mask.any() else evidence.mask.numpy()))


def _blob(shape, number):
    rng, mask = np.random.default_rng(number), np.zeros(shape, np.uint8)
    size = rng.uniform(0.15, 0.35, 2) * shape
    centre = tuple(int(v) for v in rng.uniform(0.3, 0.7, 2) * shape)
    cv2.ellipse(mask, centre, tuple(int(v) for v in size), rng.uniform(0, 180), 0, 360, 1, -1)
    return torch.from_numpy(mask > 0)


class _Beliefs:
    """Confidences and what they were about.

    What is claimed is that the object is there *and* placed rightly, so that calibration is judged on images with and without it; how
    well right and wrong are told apart, on images with it. Images that do not tell the object's turn say nothing about poses.
    """

    def __init__(self):
        self.pose, self.right, self.keypoints, self.good, self.found, self.kinds = [], [], [], [], [], []
        self.absent, self.absent_keypoints, self.given = [], [], []

    def add_present(self, score):
        alignment, parts = score.alignment, score.alignment.diagnostics.probabilities
        if score.determined:
            self.pose.append(alignment.confidence)
            self.given.append(parts["pose"])
            self.right.append(score.pose)
        self.found.append(alignment.found)
        if np.isfinite(score.share):
            self.keypoints.append(parts["keypoints"] * parts["present"])
            self.good.append(score.share >= RIGHT_SHARE)

    def add_absent(self, kind, alignment):
        parts = alignment.diagnostics.probabilities
        self.absent.append(alignment.confidence)
        self.absent_keypoints.append(parts["keypoints"] * parts["present"])
        self.kinds.append((kind, alignment.found))

    def __add__(self, other):
        both = _Beliefs()
        for name in vars(both):
            setattr(both, name, getattr(self, name) + getattr(other, name))
        return both

    def everything(self):
        """Confidences of all images, and whether the pose was right."""
        return np.array(self.pose + self.absent), np.array(self.right + [False] * len(self.absent))

    def line(self, name):
        pose = _separation(self.pose, self.right), _error(*self.everything())
        beliefs, good = self.keypoints + self.absent_keypoints, self.good + [False] * len(self.absent_keypoints)
        keypoints = _separation(self.keypoints, self.good), _error(beliefs, good)
        rejection = _separation(self.pose + self.absent, [True] * len(self.pose) + [False] * len(self.absent))
        shares = [100 * np.mean(values) for values in (self.right, self.good, self.found, [found for _, found in self.kinds])]
        print(f"{name:12s}{shares[0]:8.0f}{pose[0]:8.2f}{pose[1]:8.3f}{_error(self.given, self.right):12.3f}"
              f"{shares[1]:10.0f}{keypoints[0]:8.2f}{keypoints[1]:8.3f}"
              f"{rejection:11.3f}{shares[2]:9.0f}{shares[3]:9.1f}", flush=True)  # fmt: skip


def _separation(beliefs, truth):
    return area_under_roc(torch.tensor(beliefs, dtype=torch.float64), torch.tensor(truth))


def _error(beliefs, truth):
    return calibration_error(torch.tensor(np.array(beliefs), dtype=torch.float64), torch.tensor(np.array(truth)), BINS)


def print_confidence(models, scenes, store):
    """A line per category and one for all: how often pose and keypoints are right, AUROC and calibration error of both, rejection."""
    print(f"\n{'confidence':12s}{'right %':>8s}{'AUROC':>8s}{'error':>8s}{'if present':>12s}{'good kp %':>10s}{'AUROC':>8s}{'error':>8s}"
          f"{'rejection':>11s}{'found %':>9s}{'false %':>9s}")  # fmt: skip
    total = _Beliefs()
    for name, model in models.items():
        aligner, beliefs = Aligner(model), _Beliefs()
        for scene in tqdm(mixed(scenes, name, store), desc=f"confidence of {name}", leave=False, delay=2):
            beliefs.add_present(score_of(model, scene, aligner.align(scene.evidence)))
        for kind, evidence in without_object(scenes, name, store):
            beliefs.add_absent(kind, aligner.align(evidence))
        beliefs.line(name)
        total = total + beliefs
    total.line("all")
    print("error: calibration error over images with and without the object; if present: of the pose's probability on images with it")
    print(f"{'confidence':>12s}{'pose right':>12s}{'images':>8s}")
    confidence, right = total.everything()
    for part in np.array_split(np.argsort(confidence), BINS):
        print(f"{confidence[part].mean():12.2f}{right[part].mean():12.2f}{len(part):8d}")
    for kind in dict.fromkeys(kind for kind, _ in total.kinds):
        print(f"found in images without the object, {kind}: {100 * np.mean([found for k, found in total.kinds if k == kind]):.1f} %")
