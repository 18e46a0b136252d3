"""SFNet matches pictures: the matcher, the published protocol, KAP, and the commands that use them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from semalign3d_core.cli.main import main
from semalign3d_core.datasets.records import ImageRecord, PairRecord
from semalign3d_core.learned.sfnet import storage
from semalign3d_core.learned.sfnet.benchmark import interval, keypoint_scores, mask_scores
from semalign3d_core.learned.sfnet.network import SFNet, SFNetConfig
from semalign3d_core.matchers.sfnet import SFNetMatcher
from semalign3d_core.perception.evidence import read_image
from semalign3d_core.runtime.errors import InputError

SIZE = (144, 216)  # height, width of the pictures: every inner cell is 24 x 36 pixels
CORNERS = np.array([[40.0, 30.0], [170.0, 40.0], [100.0, 100.0], [50.0, 110.0]], np.float32)


class Colours(nn.Module):
    """Mean colours of cells and of pairs of cells: enough to tell the cells of random mosaics apart."""

    channels = (3, 3)

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, image):
        return nn.functional.avg_pool2d(image, 16) - 0.5, nn.functional.avg_pool2d(image, 32) - 0.5


@pytest.fixture
def network(monkeypatch):
    monkeypatch.setattr(storage, "create_pyramid", lambda spec: Colours().eval().requires_grad_(False))
    return SFNet(Colours(), SFNetConfig(cells=8, levels=(3,), adapt=False, readout="kernel", beta=400.0, sigma=0.7)).eval()


@pytest.fixture
def folder(tmp_path):
    """A data set folder of a picture and the same picture seen mirrored upside down, with masks and keypoints."""
    mosaic = np.random.default_rng(5).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    picture = np.array(Image.fromarray(mosaic).resize(SIZE[::-1], Image.Resampling.NEAREST))
    mask = np.zeros(SIZE, np.uint8)
    mask[24:96, 36:144] = 255
    for kind in ("JPEGImages", "Segmentation", "ImageAnnotation", "PairAnnotation"):
        (tmp_path / kind / ("test" if kind == "PairAnnotation" else "thing")).mkdir(parents=True)
    for name, turn in (("a", lambda x: x), ("b", lambda x: x[::-1, ::-1])):
        Image.fromarray(np.ascontiguousarray(turn(picture))).save(tmp_path / "JPEGImages" / "thing" / f"{name}.png")
        Image.fromarray(np.ascontiguousarray(turn(mask))).save(tmp_path / "Segmentation" / "thing" / f"{name}.png")
        points = CORNERS if name == "a" else turned(CORNERS)
        annotation = {"filename": f"{name}.png", "image_width": SIZE[1], "image_height": SIZE[0], "category": "thing"}
        annotation |= {"bndbox": [0, 0, 215, 143], "kps": {str(i): point.tolist() for i, point in enumerate(points)}}
        (tmp_path / "ImageAnnotation" / "thing" / f"{name}.json").write_text(json.dumps(annotation))
    (tmp_path / "keypoints.json").write_text(json.dumps({"thing": {"names": list("wxyz"), "flip_permutation": [0, 1, 2, 3]}}))
    pair = {"src_imname": "a.png", "trg_imname": "b.png", "category": "thing"}
    (tmp_path / "PairAnnotation" / "test" / "1-a-b:thing.json").write_text(json.dumps(pair))
    (tmp_path / "Layout" / "large").mkdir(parents=True)
    (tmp_path / "Layout" / "large" / "test.txt").write_text("1-a-b:thing\n")
    return tmp_path


def turned(points):
    return np.array([SIZE[1] - 1, SIZE[0] - 1], np.float32) - points


def test_points_go_where_the_picture_went(network, folder):
    matcher = SFNetMatcher(network)
    source, target = (matcher.look(read_image(folder / "JPEGImages" / "thing" / f"{name}.png")) for name in "ab")
    centres = torch.tensor([[54.0, 36.0], [126.0, 84.0], [90.0, 108.0]])
    with torch.no_grad():
        found = matcher.match(source, target, centres)
    np.testing.assert_allclose(found.points, turned(centres.numpy()), atol=8)
    assert ((found.confidence >= 0) & (found.confidence <= 1)).all()
    np.testing.assert_allclose(matcher.match(target, source, found.points).points, centres, atol=8)


def test_the_published_protocol_scores_a_right_match_full(network, folder):
    from semalign3d_core.datasets import open_dataset

    pairs = list(open_dataset(folder).pairs("test"))
    for mode in ("bbox", "image"):
        scores = keypoint_scores(network, pairs, mode, (0.02, 0.15))
        assert scores.shape == (1, 2) and scores[0, 1] == 1


def test_masks_are_carried_over(network, folder):
    from semalign3d_core.datasets import open_dataset

    class Masked:
        def mask(self, record):
            return np.array(Image.open(folder / "Segmentation" / "thing" / f"{record.name}.png")) > 0

    accuracy, overlap = mask_scores(network, Masked(), list(open_dataset(folder).pairs("test")))[0]
    assert accuracy > 0.9 and overlap > 0.75


def test_the_interval_holds_the_mean_and_shrinks():
    """Of a hundred images it is narrower than of ten, and around the mean."""

    def spread(count):
        images = [ImageRecord("thing", str(i), i, 1, 1, np.zeros((0, 2))) for i in range(count)]
        pairs = [PairRecord("", one, other) for one in images for other in images if one is not other]
        scores = np.random.default_rng(0).random(len(pairs))
        low, high = interval(pairs, scores, draws=300)
        assert low < scores.mean() < high
        return high - low

    assert spread(40) < spread(8)


def test_it_needs_the_picture(network):
    from types import SimpleNamespace

    with pytest.raises(InputError, match="needs the image"):
        SFNetMatcher(network).prepare(SimpleNamespace(image=None, name="x"))


@pytest.mark.slow
def test_an_evaluation_knows_it(network, folder):
    """eval_spair scores it, with KAP from its own scores, and says which network it was."""
    storage.save_network(network, folder / "net.safetensors")
    arguments = ["evaluate", "--dataset", str(folder), "--method", "sfnet", "--network", str(folder / "net.safetensors")]
    assert main([*arguments, "--output", str(folder / "out"), "--kap", "visible_only", "--alpha", "0.15"]) == 0
    results = json.loads((folder / "out" / "results.json").read_text())
    assert results["all"]["pck"]["0.15"]["per_point"] == 100
    assert results["all"]["kap"]["0.15"] is not None
    assert "weights" in json.dumps(results["config"]) + json.dumps(results["protocol"]) + json.dumps(results)


def test_an_evaluation_without_network_says_what_to_do(folder, capsys):
    assert main(["evaluate", "--dataset", str(folder), "--method", "sfnet", "--output", str(folder / "out")]) == 2
    assert "--network" in capsys.readouterr().err


@pytest.mark.slow
def test_match_writes_points_and_flow(network, folder, capsys):
    storage.save_network(network, folder / "net.safetensors")
    pictures = [str(folder / "JPEGImages" / "thing" / f"{name}.png") for name in "ab"]
    mask = str(folder / "Segmentation" / "thing" / "a.png")
    arguments = ["match", *pictures, "--points", "54,36 126,84", "--network", str(folder / "net.safetensors"), "--source-mask", mask]
    assert main([*arguments, "--output", str(folder / "out"), "--device", "cpu"]) == 0
    result = json.loads((folder / "out" / "a_b.match.json").read_text())
    np.testing.assert_allclose([match["target"] for match in result["matches"]], turned(np.array([[54, 36], [126, 84]])), atol=8)
    assert all(match["cycle_pixels"] < 10 for match in result["matches"])
    row = np.array(Image.open(folder / "out" / "a_b.match.flow.png"))
    assert row.shape == (SIZE[0], 4 * SIZE[1] + 3 * 6, 3)
    target, warped = row[:, : SIZE[1]].astype(int), row[:, SIZE[1] + 6 : 2 * SIZE[1] + 6].astype(int)
    inner = np.abs(target - warped)[30:114, 44:172]
    assert np.median(inner) < 40


def test_the_ablation_scores_every_row(network, folder):
    """Rows without adaptation are the frozen features' scores, whatever was trained; the table holds published numbers beside ours."""
    from dataclasses import replace

    from semalign3d_core.datasets import open_dataset
    from semalign3d_core.learned.sfnet import ablation
    from semalign3d_core.learned.sfnet.train import SFNetTraining

    config = SFNetTraining(replace(network.config, levels=(3, 4), adapt=True))
    pairs = list(open_dataset(folder).pairs("test"))
    networks = {name: SFNet(network.pyramid, replace(config.network, **changes)) for name, (changes, _) in ablation.TRAINED.items()}
    rows = {row["row"]: row for row in ablation.evaluate_variants(networks, config, pairs)}
    assert len(rows) == len(ablation.ROWS) and all(0 <= row["pck"] <= 100 for row in rows.values())
    best = list(rows.values())[-1]
    assert all(row["lost"] == pytest.approx(best["pck"] - row["pck"]) and row["lost_low"] <= row["lost_high"] for row in rows.values())
    frozen = SFNet(network.pyramid, replace(config.network, adapt=False))
    assert rows["no adaptation, both levels, kernel"]["pck"] == 100 * keypoint_scores(frozen, pairs)[0, 0]
    assert "78.7" in ablation.table(list(rows.values())).splitlines()[-1]
