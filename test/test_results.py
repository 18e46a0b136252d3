"""What a user gets back from the shipped mug model and a photograph: pictures, files, plain numbers; matching with and without a model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from semalign3d_core import FrameResult, MatchResult, load_pipeline, match
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError

COFFEE, CUP = Path(__file__).parents[1] / "examples" / "photographs" / "coffee.jpg", (172, 18, 408, 308)
POINTS = [[300, 20], [221, 303], [405.5, 120]]


@pytest.fixture(scope="module")
def pipeline():
    return load_pipeline("mug", device="cpu")


@pytest.fixture(scope="module")
def result(pipeline):
    return pipeline.process(COFFEE, box=CUP)


@pytest.fixture(scope="module")
def matched():
    return match(COFFEE, COFFEE, POINTS, device="cpu")


@pytest.mark.slow
def test_the_picture_shows_more_than_the_photograph(result, tmp_path):
    drawn = result.draw(tmp_path / "found.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "found.png")), drawn)
    assert drawn.shape == (400, 600, 3) and (drawn != result.evidence.image).any(-1).mean() > 0.02
    with pytest.raises(InputError, match=r"choose \.png or \.jpg"):
        result.draw(tmp_path / "found.picture")


def test_plain_numbers_are_json(result):
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["found"] and plain["category"] == "mug" and (plain["width"], plain["height"]) == (600, 400)
    assert [keypoint["name"] for keypoint in plain["keypoints"]] == list(result.alignment.keypoint_names)
    np.testing.assert_allclose(plain["keypoints"][0]["pixel"], result.alignment.keypoints_2d[0], rtol=1e-5)


@pytest.mark.slow
def test_a_stored_result_is_the_same(result, matched, tmp_path):
    result.save(tmp_path / "a.safetensors")
    again = FrameResult.load(tmp_path / "a.safetensors")
    assert again.to_dict() == result.to_dict() and torch.equal(again.evidence.features.values, result.evidence.features.values)
    np.testing.assert_array_equal(again.draw(), result.draw())
    matched.save(tmp_path / "m.safetensors")
    assert MatchResult.load(tmp_path / "m.safetensors").to_dict() == matched.to_dict()
    with pytest.raises(FileFormatError, match="holds a MatchResult, expected a FrameResult"):
        FrameResult.load(tmp_path / "m.safetensors")


def test_files_that_hold_no_result(result, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(FileFormatError, match=r"a\.safetensors is not a stored result"):
        FrameResult.load(tmp_path / "a.safetensors")
    with pytest.raises(MissingFileError, match=r"b\.safetensors does not exist"):
        FrameResult.load(tmp_path / "b.safetensors")
    with pytest.raises(InputError, match=r"stored as \.safetensors"):
        result.save(tmp_path / "a.json")


def test_the_point_cloud_lies_on_the_object(result, tmp_path):
    result.to_ply(tmp_path / "a.ply")
    cloud = trimesh.load(tmp_path / "a.ply")
    alignment = result.alignment
    expected = torch.cat([alignment.cloud_3d, alignment.keypoints_3d])
    np.testing.assert_allclose(cloud.vertices, expected, atol=1e-5)
    pixels = alignment.camera.to_pixels(alignment.camera.project(alignment.cloud_3d)).round().long().numpy()
    inside = ((pixels >= 0) & (pixels < [600, 400])).all(1)
    colours = result.evidence.image[pixels[inside][:, 1], pixels[inside][:, 0]]
    np.testing.assert_array_equal(cloud.colors[: len(pixels)][inside][:, :3], colours)
    assert f"comment keypoint 0 {alignment.keypoint_names[0]}".encode() in (tmp_path / "a.ply").read_bytes()


def test_the_scene_has_a_node_for_each_keypoint(result, tmp_path):
    result.to_glb(tmp_path / "a.glb")
    scene = trimesh.load(tmp_path / "a.glb")
    for name, place in zip(result.alignment.keypoint_names, result.alignment.keypoints_3d, strict=True):
        placed, _ = scene.graph[name]
        np.testing.assert_allclose(placed[:3, 3], place.numpy() * [1, -1, -1], atol=1e-5)
    cloud = scene.geometry["points"]
    assert len(cloud.faces) == 8 * len(result.alignment.cloud_3d)
    assert (
        np.einsum("nc,nc->n", cloud.face_normals, cloud.triangles_center - cloud.vertices.reshape(-1, 6, 3).mean(1).repeat(8, 0)) > 0
    ).all()


def test_results_say_in_a_line_what_they_are(result, matched, pipeline):
    assert "coffee.jpg: mug, found, confidence" in repr(result)
    for value in (result, result.evidence, result.alignment, pipeline.model, matched, matched.matches, matched.source):
        assert len(repr(value)) < 300 and "\n" not in repr(value)


def test_a_notebook_shows_picture_and_table(result, matched):
    page = result._repr_html_()
    assert page.count("<tr>") == 12 and "data:image/jpeg;base64," in page and "handle_outer" in page
    assert matched._repr_html_().count("<tr>") == 1 + len(POINTS)


def test_a_list_gives_a_list(pipeline, result):
    image = result.evidence.image
    cut = image[18:308, 172:408]
    both = pipeline.process([cut, Image.fromarray(cut)])
    assert [one.alignment.category for one in both] == ["mug", "mug"]
    torch.testing.assert_close(both[0].alignment.keypoints_2d, both[1].alignment.keypoints_2d)
    assert pipeline.process([]) == []
    with pytest.raises(InputError, match="belong to one image"):
        pipeline.process([cut], box=CUP)


def test_a_batch_gives_what_its_images_give_one_by_one(pipeline, result):
    image, box = result.evidence.image, (0.0, 0.0, 230.0, 285.0)
    cut = image[18:308, 172:408]
    images, boxes = [cut, image, Image.fromarray(cut), cut[:, ::-1].copy()], [None, CUP, box, None]
    for one, batched, where in zip(images, pipeline.process_batch(images, boxes=boxes), boxes, strict=True):
        alone = pipeline.process(one, box=where).alignment
        torch.testing.assert_close(batched.alignment.keypoints_2d, alone.keypoints_2d, atol=1e-3, rtol=0)
        assert batched.alignment.found == alone.found and batched.alignment.confidence == pytest.approx(alone.confidence, abs=1e-5)
    stack = np.stack([cut, cut])
    assert len(pipeline.process_batch(stack)) == 2 and pipeline.process_batch([]) == []
    with pytest.raises(InputError, match="2 images and 1 boxes"):
        pipeline.process_batch(stack, boxes=[box])


def test_features_alone_find_points_again(matched):
    """In the same picture, within the size of a cell (12.5 pixels)."""
    assert (matched.matches.points - torch.tensor(POINTS)).norm(dim=1).max() < 12.5
    assert matched.method == "window_soft_argmax" and matched.frames == ()


def test_a_model_says_more_of_the_points(pipeline):
    found = match(COFFEE, COFFEE, POINTS, pipeline, boxes=(CUP, CUP))
    assert (found.matches.points - torch.tensor(POINTS)).norm(dim=1).max() < 30
    plain = found.to_dict()
    assert plain["category"] == "mug" and plain["source"]["found"] and len(plain["matches"][0]["position"]) == 3
    assert found.draw().shape[0] == 480


@pytest.mark.slow
def test_without_points_all_that_return_are_matched(pipeline, tmp_path):
    """A lattice over the source; by features over the whole picture, through a model on the object alone."""
    plain = match(COFFEE, COFFEE, device="cpu")
    assert len(plain.points) > 150 and plain.cycle.max() <= 600 / 24 and len(plain.to_dict()["matches"]) == len(plain.points)
    assert (plain.matches.points - plain.points).norm(dim=1).max() < 40
    known = match(COFFEE, COFFEE, category=pipeline, boxes=(CUP, CUP))
    x, y = known.points.unbind(1)
    assert len(known.points) > 40 and known.cycle.max() <= 290 / 24
    assert x.min() >= CUP[0] and y.min() >= CUP[1] and x.max() <= CUP[2] and y.max() <= CUP[3]
    assert len(known.matches.points_3d) == len(known.matches.visible) == len(known.points)
    assert known.draw(tmp_path / "all.png").shape[0] == 480
    assert known._repr_html_().count("<tr>") == 32 and f"and {len(known.points) - 30} more" in known._repr_html_()


@pytest.mark.parametrize(
    ("points", "problem"), [([[1, 2, 3]], "found shape"), ([], "found shape"), ([[700, 2]], "lies outside"), ([[np.nan, 2]], "outside")]
)
def test_points_that_are_none(points, problem):
    with pytest.raises(InputError, match=problem):
        match(COFFEE, COFFEE, points, device="cpu")


def test_a_matcher_that_needs_left_and_right_is_refused():
    with pytest.raises(InputError, match="use it with eval_spair"):
        match(COFFEE, COFFEE, POINTS, matcher="adaptive_pose", device="cpu")
    with pytest.raises(InputError, match="unknown matcher 'nearest'"):
        match(COFFEE, COFFEE, POINTS, matcher="nearest", device="cpu")


def test_an_option_that_there_is_not():
    with pytest.raises(InputError, match="no option 'mask': choose one of backbone"):
        load_pipeline("mug", mask="none")


@pytest.mark.slow
def test_the_command_matches_without_a_category(tmp_path, capsys):
    from semalign3d_core.cli.main import main

    assert main(["match", str(COFFEE), str(COFFEE), "--points", "300,20 221,303", "--device", "cpu", "--output", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "coffee_coffee.match.json").read_text())
    assert written["method"] == "window_soft_argmax" and len(written["matches"]) == 2
    assert (tmp_path / "coffee_coffee.match.png").is_file() and "coffee_coffee.match.json" in capsys.readouterr().out
