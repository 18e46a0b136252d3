"""Matchers that look at the mirror image of the source get it: extracted once per image, cached, with the points' partners."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_dataset import edit_json, make_dataset

from semalign3d_core import matchers
from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.datasets.spair import SpairUDataset
from semalign3d_core.evaluation.run.config import EvaluationConfig
from semalign3d_core.evaluation.run.runner import evaluate
from semalign3d_core.geometry.image_grid import SquareGrid
from semalign3d_core.matchers import Matcher
from semalign3d_core.matchers.adaptive_pose import AdaptivePoseMatcher
from semalign3d_core.perception import backbones
from semalign3d_core.perception.backbones import FeatureBackbone
from semalign3d_core.perception.evidence import FeatureMap, read_image
from semalign3d_core.perception.look import look
from semalign3d_core.perception.masks.precomputed import PrecomputedMasks
from semalign3d_core.runtime.errors import InputError


@pytest.fixture
def folder(tmp_path):
    """Every image also has features of its mirror image: here those of the image, mirrored, and other noise."""
    root = make_dataset(tmp_path / "data", noise=0.6)
    generator = torch.Generator().manual_seed(0)
    for path in (root / "Features" / "sim").rglob("*.safetensors"):
        values = load_file(path)["features"].float().flip(2)
        values += 0.3 * torch.randn(values.shape, generator=generator)
        save_file({"features": values.half()}, path.with_suffix(".flip.safetensors"))
    return root


def configuration(folder, output, **changes):
    options = {"backbone": "precomputed:sim", "masks": "precomputed", "gallery": 0, "method": "adaptive_pose", **changes}
    return EvaluationConfig(folder, output, **options)


def evidence(folder, record, mirrored=False):
    image = read_image(record.path, record)
    return look(image.mirror() if mirrored else image, backbones.create("precomputed:sim", folder), mask_source=PrecomputedMasks(folder))


@pytest.mark.slow
@pytest.mark.parametrize("masks", ["precomputed", "none"])
def test_adaptive_pose_predicts_what_the_matcher_says_of_each_pair(folder, tmp_path, masks):
    evaluation = evaluate(configuration(folder, tmp_path / "out", masks=masks))
    matcher, turned = AdaptivePoseMatcher(use_masks=masks != "none"), 0
    for score in evaluation.scores:
        record, labels = score.pair.record, score.pair.labels
        source, target, mirrored = (evidence(folder, *image) for image in ((record.source,), (record.target,), (record.source, True)))
        flip = FolderDataset(folder).keypoint_spec(score.pair.category).flip_permutation
        place = {label: i for i, label in enumerate(labels)}
        permutation = torch.tensor([place.get(flip[label], i) for i, label in enumerate(labels)])
        visible = torch.tensor([flip[label] in place for label in labels])
        points = torch.from_numpy(score.pair.source_points)
        expected = matcher.match(source, target, points, mirrored, permutation, visible).points
        plain = matcher.match(source, target, points, source, torch.arange(len(labels))).points
        turned += not torch.allclose(expected, plain, atol=0.1)
        assert np.allclose(score.points, expected, atol=1e-2), score.pair.name
    assert 0 < turned < len(evaluation.scores)  # some sources are mirrored, others not


class Recording(Matcher):
    """A matcher that keeps what it is given."""

    name, uses_mirror, calls = "recording", True, []

    def match(self, source, target, points, mirrored, permutation, visible):
        self.calls.append((source, mirrored, permutation.tolist(), visible.tolist()))
        return matchers.Matches(points, torch.ones(len(points)))


def test_partners_that_are_not_among_the_points_are_marked(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(Recording, "calls", [])
    monkeypatch.setitem(matchers.MATCHERS, "recording", Recording)
    name = "000000-img0-img1:car"
    for image in ("img0", "img1"):
        edit_json(folder / "ImageAnnotation" / "car" / f"{image}.json", lambda content: content["kps"].update({"1": None, "3": [20, 20]}))
    evaluate(configuration(folder, tmp_path / "out", method="recording", limit=1, categories=("car",)))
    ((source, mirrored, permutation, visible),) = Recording.calls
    labels = [k for k in range(5) if k != 1 and k in _labels(folder, name)]
    assert visible == [label != 0 for label in labels]  # 0 and 1 are the mirror pair, 1 is hidden
    assert permutation == list(range(len(labels)))
    assert torch.equal(mirrored.mask, source.mask.flip(1)) and not torch.equal(mirrored.features.values, source.features.values)


def _labels(folder, name):
    pair = FolderDataset(folder).pair("test", name)
    return np.flatnonzero(np.isfinite(pair.source.keypoints).all(1) & np.isfinite(pair.target.keypoints).all(1)).tolist()


@pytest.mark.slow
def test_mirrored_features_are_computed_once_per_image_and_cached(folder, tmp_path, monkeypatch):
    extracted = []

    class Counting(FeatureBackbone):
        name, channels = "counting", 16

        def __init__(self, root):
            self.inner = backbones.create("precomputed:sim", root)

        def extract(self, image):
            extracted.append((image.name, image.mirrored))
            return self.inner.extract(image)

    monkeypatch.setitem(backbones.BACKBONES, "counting", lambda argument, dataset_root=None: Counting(dataset_root))
    options = {"backbone": "counting", "cache": tmp_path / "cache"}
    first = evaluate(configuration(folder, tmp_path / "a", **options)).results
    assert len(extracted) == len(set(extracted)) == 16 and sum(mirrored for _, mirrored in extracted) == 8
    second = evaluate(configuration(folder, tmp_path / "b", **options)).results
    assert len(extracted) == 16 and second["all"] == first["all"]
    evaluate(configuration(folder, tmp_path / "c", method="nearest_neighbour", **options))
    assert len(extracted) == 16, "other methods use the same features and ask for no mirror images"


@pytest.mark.slow
def test_of_a_mirror_image_the_mirrored_window_is_seen(folder, tmp_path, monkeypatch):
    """A backbone that looks at the object's surroundings looks at the same ones in the mirror image."""
    asked = {}

    class Close(FeatureBackbone):
        name, channels, close_up = "close", 8, 0.2

        def extract(self, image):
            asked.setdefault(image.name, {})[image.mirrored] = image
            values = torch.rand(8, 10, 10, generator=torch.Generator().manual_seed(len(asked)))
            return FeatureMap(torch.nn.functional.normalize(values, dim=0), SquareGrid(image.height, image.width, 10, window=image.window))

    monkeypatch.setitem(backbones.BACKBONES, "close", lambda argument: Close())
    evaluate(configuration(folder, tmp_path / "a", backbone="close", cache=tmp_path / "cache"))
    assert len(asked) == 8
    for seen in asked.values():
        left, top, side = seen[False].window
        assert seen[True].window == (seen[True].width - left - side, top, side)


def test_data_sets_without_mirror_table_are_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(FolderDataset, "has_mirror_table", SpairUDataset.has_mirror_table)
    with pytest.raises(InputError, match=r"adaptive_pose.*mirror"):
        evaluate(configuration(folder, tmp_path / "out"))


@pytest.mark.slow
def test_rotations_and_windows_are_options(folder, tmp_path, monkeypatch):
    """With rotations the matcher gets the turned images, too; stored features have none, which is said."""
    asked = []
    real = AdaptivePoseMatcher.match

    def match(self, *arguments, turned=()):
        asked.append((self.width, self.quarters, [e.camera.height for e in turned], arguments[0].camera.width))
        return real(self, *arguments, turned=turned)

    monkeypatch.setattr(AdaptivePoseMatcher, "match", match)
    options = {"backbone": "compact", "rotations": True, "window": 4.0, "limit": 1, "categories": ("car",)}
    evaluation = evaluate(configuration(folder, tmp_path / "out", **options))
    assert evaluation.results["config"]["method_settings"]["width"] == 4
    width, quarters, heights, across = asked[0]
    assert (width, quarters) == (4.0, (1, 2, 3)) and heights[0] == heights[2] == across
    with pytest.raises(InputError, match="leave out the rotations"):
        evaluate(configuration(folder, tmp_path / "other", rotations=True, limit=1))
    with pytest.raises(InputError, match="nearest_neighbour has no --window"):
        evaluate(configuration(folder, tmp_path / "third", method="nearest_neighbour", window=3.0))
