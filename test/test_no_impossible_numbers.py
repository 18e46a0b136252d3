"""No result holds a number that is not finite, or a confidence outside of 0..1, whatever camera, depth, model and features say."""

import json
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from simulated_category import PICTURE, OneImage

from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.matching import match_frames
from semalign3d_core.perception.evidence import DepthMap, FeatureMap, ImageInput
from semalign3d_core.pipeline import Demonstration, Pipeline
from semalign3d_core.results import MatchResult
from semalign3d_core.runtime.errors import InputError, OutputError
from semalign3d_core.runtime.files import write_json
from semalign3d_core.transfer.matches import Matches

NAN, INF = float("nan"), float("inf")


def _numbers(value):
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _numbers(one)
    elif isinstance(value, float):
        yield value


def _sound(result):
    plain = result.to_dict()
    json.dumps(plain, allow_nan=False)
    assert all(np.isfinite(value) for value in _numbers(plain))
    confidences = [
        plain["confidence"],
        *(k["confidence"] for k in plain["keypoints"]),
        *(m["confidence"] for m in plain.get("matches", ())),
    ]
    assert all(0 <= value <= 1 for value in confidences)


def _tried(pipeline, **given):
    """The result, checked; None where it was refused."""
    try:
        result = pipeline.process(ImageInput(PICTURE), **given)
    except InputError as error:
        assert len(str(error)) < 500
        return None
    _sound(result)
    return result


def _camera(focal, principal=(0.5, 0.5), known=True):
    return PinholeCamera(torch.tensor([float(focal)] * 2), torch.tensor([float(v) for v in principal]), 240, 240, known)


@pytest.mark.slow
def test_cameras_that_mean_nothing(category, model):
    pipeline = Pipeline(model, OneImage(category.image(3)), Aligner(model))
    pipeline = pipeline.with_demonstration(Demonstration(ImageInput(PICTURE), ("a",), np.float32([[120, 120]])))
    for focal in (0.0, -1.0, 1e-30, 1e-6, 1e6, 1e38, INF, NAN):
        for known in (True, False):
            _tried(pipeline, camera=_camera(focal, known=known))
    for principal in ((1e30, 0.5), (NAN, 0.5), (-INF, INF), (1e4, -1e4)):
        _tried(pipeline, camera=_camera(1.5, principal))
    for camera in (_camera(0.0), _camera(NAN), _camera(1.5, (NAN, 0.5))):
        with pytest.raises(InputError, match="calibrate the camera"):
            pipeline.process(ImageInput(PICTURE), camera=camera)


@pytest.mark.slow
def test_depth_diameters_features_and_masks_that_mean_nothing(category, model):
    truth = category.image(3)
    provider, good = OneImage(truth), truth.evidence
    pipeline = Pipeline(model, provider, Aligner(model))
    for value in (0.0, -1.0, 1e-38, 1e38, INF, NAN):
        for kind in ("metric", "depth", "disparity"):
            _tried(pipeline, depth=DepthMap(torch.full((240, 240), value), kind))
    for diameter in (1e-40, 1e38, INF, NAN, -1.0):
        with pytest.raises(InputError, match="the diameter is"):
            Aligner(model, known_diameter=diameter)
    for features in (good.features.values * NAN, good.features.values * 0, good.features.values * 1e30, good.features.values * INF):
        provider.evidence = replace(good, features=FeatureMap(features, good.features.grid))
        assert _tried(pipeline) is None or not features.any()
    provider.evidence = good
    for place in ((0, 0), (239, 239), (120, 120)):
        mask = torch.zeros(240, 240, dtype=torch.bool)
        mask[place] = True
        _tried(pipeline, mask=mask)
    assert _tried(pipeline) is not None


@pytest.mark.slow
def test_models_that_mean_nothing(category, model):
    provider = OneImage(category.image(3))
    for name in ("shape", "dense_mu", "dense_sd", "weights", "mode_variances", "focal", "offsets", "keypoint_features"):
        for factor in (0.0, -1.0, 1e30, NAN):
            wrong = replace(model, **{name: getattr(model, name) * factor})
            with suppress(RuntimeError):  # such a model is refused when it is read; see test_storage
                _tried(Pipeline(wrong, provider, Aligner(wrong)))


def test_what_is_wrong_in_a_result_is_named(category, model):
    pipeline = Pipeline(model, OneImage(category.image(3)), Aligner(model))
    result = pipeline.process(ImageInput(PICTURE))
    found = result.alignment
    for change, name in (
        ({"confidence": 1.01}, "the confidences"),
        ({"confidence": NAN}, "the confidences"),
        ({"keypoint_confidence": found.keypoint_confidence - 2}, "the confidences"),
        ({"keypoints_2d": found.keypoints_2d * INF}, "the keypoints"),
        ({"keypoints_3d": found.keypoints_3d * NAN}, "the keypoints"),
        ({"translation": found.translation * NAN}, "the pose"),
        ({"scale": INF}, "the scale"),
        ({"energy": NAN}, "the energy"),
        ({"cloud_3d": found.cloud_3d * INF}, "the object's points"),
    ):
        with pytest.raises(InputError, match=f"{name} came out as numbers that mean nothing"):
            replace(result, alignment=replace(found, **change))
    with pytest.raises(InputError, match="the matches came out"):
        replace(result, matches=Matches(torch.tensor([[1.0, NAN]]), torch.ones(1)))
    images = ImageInput(PICTURE), ImageInput(PICTURE)
    good = match_frames(pipeline, images, (result, result), torch.tensor([[120.0, 120.0]]))
    assert isinstance(good, MatchResult)
    with pytest.raises(InputError, match="the confidences came out"):
        replace(good, matches=replace(good.matches, confidence=torch.tensor([1.5])))


def test_no_file_of_json_holds_a_number_that_json_does_not_know(tmp_path):
    write_json(tmp_path / "a.json", {"a": [NAN, 1.5, {"b": INF}], "c": (1, -INF)})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"a": [None, 1.5, {"b": None}], "c": [1, None]}
    with pytest.raises(OutputError):
        write_json(tmp_path, {})
