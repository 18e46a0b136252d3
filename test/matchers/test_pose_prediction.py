"""From which side an object is seen: votes of template sets, features of pairs, the matcher and the command."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from semalign3d_core.cli.main import main
from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.geometry.image_grid import SquareGrid, mirror_points
from semalign3d_core.matchers import MATCHERS
from semalign3d_core.matchers.pose_prediction import (
    VIEWS,
    PosePrediction,
    PosePredictor,
    PoseTable,
    read_templates,
    shipped_templates,
    vote_pose,
)
from semalign3d_core.perception.backbones.compact import CompactBackbone
from semalign3d_core.perception.backbones.pair_features import OwnPairFeatures
from semalign3d_core.perception.evidence import FeatureMap, ImageEvidence, ImageInput
from semalign3d_core.perception.look import look
from semalign3d_core.runtime.errors import InputError, MissingFileError


def test_votes_need_two_of_three_sets_and_ties_go_to_the_earlier_view():
    sets = torch.tensor([[3.0, 1, 2, 2.5], [3, 1, 2, 2.5], [1, 3, 0.5, 2.5]])
    front, right, four = vote_pose(sets.reshape(1, 12))
    assert (front.item(), right.item(), four.item()) == (1, 2, 1)
    tie = torch.tensor([[1.0, 2, 3, 4], [2, 1, 3, 4]]).reshape(1, 8)
    assert vote_pose(tie)[2].item() == 0
    for wrong in (torch.zeros(2, 7), torch.zeros(2, 0)):
        with pytest.raises(InputError, match="4 x sets"):
            vote_pose(wrong)


def picture(seed, height=40, width=48):
    """Coloured blocks: pictures that a network without training tells apart."""
    blocks = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.repeat(np.repeat(blocks, height // 5, 0), width // 6, 1)


@pytest.fixture
def templates(tmp_path):
    """Three sets in a folder; all views of all sets are different pictures."""
    for n in range(3):
        folder = tmp_path / "templates" / f"set{n}"
        folder.mkdir(parents=True)
        for k, view in enumerate(VIEWS):
            Image.fromarray(picture(10 * n + k)).save(folder / f"{view}.png")
    return tmp_path / "templates"


@pytest.mark.slow
def test_an_image_has_the_pose_of_the_template_it_equals(templates):
    predictor = PosePredictor(OwnPairFeatures(CompactBackbone()), read_templates(templates), cells=40)
    for k, view in enumerate(VIEWS):
        # equal to the view of every set in turn: only that set's distance is zero
        found = predictor.predict(predictor.features.describe(ImageInput(picture(k))))
        assert found.distances.shape == (3, 4)
        assert found.distances[0].argmin() == k and found.distances[0, k] < 1e-3 < found.distances[0].max(), view


@pytest.mark.slow
def test_only_the_object_counts(templates):
    predictor = PosePredictor(OwnPairFeatures(CompactBackbone()), read_templates(templates), cells=40)
    mask = torch.zeros(40, 48, dtype=torch.bool)
    mask[:, :24] = True
    described = predictor.features.describe(ImageInput(picture(1)))
    assert not torch.equal(predictor.predict(described, mask).distances, predictor.predict(described).distances)


def test_incomplete_template_folders_are_named(tmp_path, templates):
    with pytest.raises(MissingFileError, match="nowhere does not exist"):
        read_templates(tmp_path / "nowhere")
    (templates / "set1" / "left.png").unlink()
    with pytest.raises(MissingFileError, match="set1 has no image called left"):
        read_templates(templates)
    with pytest.raises(MissingFileError, match="holds no template set"):
        read_templates(templates / "set0")


@pytest.mark.slow
def test_the_matcher_mirrors_the_source_where_the_sides_differ(templates):
    backbone = CompactBackbone()
    right, left = (look(ImageInput(picture(VIEWS.index(view))), backbone) for view in ("right", "left"))
    matcher = MATCHERS["template_pose"](templates=templates, backbone=backbone, cells=40)
    # one set decides alone here: the other two know neither picture
    matcher.predictor.templates = matcher.predictor.templates[:4]
    assert matcher.prepare(right).right and not matcher.prepare(left).right
    points, permutation = torch.tensor([[10.0, 5.0], [37.0, 20.0]]), torch.tensor([1, 0])
    # seen through the mirror: what the source's mirror image shows at the partner's place
    grid = SquareGrid(40, 48, 40)
    mirrored = ImageEvidence(FeatureMap(right.features.values, grid), PinholeCamera.centred(1.5, 40, 48))
    found = matcher.match(left, right, points, mirrored, permutation)
    turned = mirror_points(points, 48)[permutation]
    expected = matcher.matcher.match(mirrored, right, turned)
    torch.testing.assert_close(found.points, expected.points)
    same = matcher.match(matcher.prepare(right), right, points, mirrored, permutation)
    torch.testing.assert_close(same.points, matcher.matcher.match(right, right, points).points)
    with pytest.raises(InputError, match="mirror permutation"):
        matcher.match(left, right, points)
    with pytest.raises(InputError, match="needs a folder of template pictures and the backbone"):
        MATCHERS["template_pose"]()


@pytest.mark.slow
def test_the_command_writes_votes_and_distances(tmp_path, templates, capsys):
    image = tmp_path / "one.png"
    Image.fromarray(picture(1)).save(image)
    for n in (1, 2):  # all sets agree
        for k, view in enumerate(VIEWS):
            Image.fromarray(picture(k)).save(templates / f"set{n}" / f"{view}.png")
    options = ["--templates", str(templates), "--output", str(tmp_path / "out"), "--cells", "32"]
    assert main(["pose", str(image), *options]) == 0
    content = json.loads((tmp_path / "out" / "one.pose.json").read_text())
    assert (content["view"], content["front_back"], content["masked"]) == ("front", "front", False)
    assert content["distances"]["set2"]["front"] < 1e-3 < content["distances"]["set2"]["back"]
    assert "one.png: front (front, " in capsys.readouterr().out
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    assert main(["pose", str(broken), str(image), *options]) == 1
    assert "broken.png cannot be read" in capsys.readouterr().err


@pytest.mark.slow
def test_shipped_templates_labels_and_pictures(tmp_path, capsys):
    """Out of the box: a template is seen from its own side, the table says so, and the picture shows all comparisons."""
    shipped = shipped_templates("car")
    assert sorted(p.name for p in shipped.parent.iterdir()) == ["aeroplane", "car", "chair", "mug", "tvmonitor"]
    images = []
    for view in ("back", "left"):
        images.append(tmp_path / f"{view}_car.jpg")
        images[-1].write_bytes((shipped / "set2" / f"{view}.jpg").read_bytes())
    (tmp_path / "sides.csv").write_text("image,side\nback_car.jpg,back\nleft_car,left\n")
    options = ["--category", "car", "--labels", str(tmp_path / "sides.csv"), "--cells", "32", "--output", str(tmp_path / "out")]
    assert main(["pose", *map(str, images), *options]) == 0
    (row,) = json.loads((tmp_path / "out" / "pose_table.json").read_text())
    assert row == {"features": "compact", "left/right": 100.0, "front/back": 100.0, "either": 100.0, "four ways": 100.0, "images": 2}
    assert "four ways" in capsys.readouterr().out
    shown = np.asarray(Image.open(tmp_path / "out" / "back_car.imd.png"))
    assert shown.shape == (3 * 228, 8 * 204, 3)
    assert main(["pose", str(images[0]), "--category", "bottle"]) == 2
    assert "the same from all sides" in capsys.readouterr().err
    (tmp_path / "sides.csv").write_text("back_car.jpg,up\nleft_car,left\nx,up\n")
    assert main(["pose", str(images[0]), *options]) == 2
    assert "'x,up'" in capsys.readouterr().err
    assert main(["pose", str(images[0])]) == 2


def test_the_table_counts_as_the_paper_does():
    table = PoseTable()
    table.add("left", PosePrediction("front", "left", "front", torch.zeros(3, 4)))
    table.add("front", PosePrediction("back", "left", "front", torch.zeros(3, 4)))
    assert table.summary() == {"left/right": 100.0, "front/back": 0.0, "either": 50.0, "four ways": 50.0, "images": 2}
    with pytest.raises(InputError, match="side"):
        table.add("top", PosePrediction("back", "left", "front", torch.zeros(3, 4)))


@pytest.mark.slow
def test_distances_of_two_images_as_a_picture(tmp_path, capsys):
    shipped = shipped_templates("mug")
    arguments = ["imd", str(shipped / "set1" / "left.jpg"), str(shipped / "set1" / "right.jpg"), "--output", str(tmp_path)]
    assert main([*arguments, "--rotations", "--masks", "none"]) == 0
    content = json.loads((tmp_path / "left_right.imd.json").read_text())
    assert content["nearest"] in ("as it is", "mirrored") and len(content["distances"]) == 5
    assert np.asarray(Image.open(tmp_path / "left_right.imd.png")).shape == (228, 6 * 204, 3)
