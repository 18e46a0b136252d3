"""Bad input: an error that names the culprit, or a counted skip that never raises a score."""

import pytest
from safetensors.torch import load_file, save_file
from tiny_dataset import edit_json, make_dataset

from semalign3d_core.evaluation.run.config import EvaluationConfig
from semalign3d_core.evaluation.run.runner import evaluate
from semalign3d_core.perception import backbones
from semalign3d_core.perception.backbones import FeatureBackbone
from semalign3d_core.runtime.errors import SemAlign3DError


@pytest.fixture
def folder(tmp_path):
    return make_dataset(tmp_path / "data", noise=0.3)


def run(folder, output, **changes):
    options = {"backbone": "precomputed:sim", "depth": "precomputed", "masks": "precomputed", "gallery": 0, **changes}
    return evaluate(EvaluationConfig(folder, folder.parent / output, **options)).results


def image(folder, name="car/img1"):
    return folder / "JPEGImages" / f"{name}.jpg"


def annotation(folder, name="car/img1"):
    return folder / "ImageAnnotation" / f"{name}.json"


def corrupt_jpeg(folder):
    image(folder).write_bytes(image(folder).read_bytes()[:300])


def not_a_picture(folder):
    image(folder).write_text("<html>404</html>")


def missing_image(folder):
    image(folder).unlink()


def missing_annotation(folder):
    annotation(folder).unlink()


def wrong_size(folder):
    edit_json(annotation(folder), lambda content: content.update(image_width=content["image_width"] + 20))


def nan_features(folder):
    path = folder / "Features" / "sim" / "car" / "img1.safetensors"
    features = load_file(path)["features"].clone()
    features[0, 0, 0] = float("nan")
    save_file({"features": features}, path)


def truncated_features(folder):
    path = folder / "Features" / "sim" / "car" / "img1.safetensors"
    path.write_bytes(path.read_bytes()[:-50])


def keypoint_outside(folder):
    def change(content):
        label = next(k for k, value in content["kps"].items() if value)
        content["kps"][label] = [content["image_width"] + 30, 10]

    edit_json(annotation(folder), change)


def keypoint_is_text(folder):
    edit_json(annotation(folder), lambda content: content["kps"].update({"0": "left"}))


def no_box(folder):
    edit_json(annotation(folder), lambda content: content.pop("bndbox"))


def empty_box(folder):
    edit_json(annotation(folder), lambda content: content.update(bndbox=[5, 5, 5, 5]))


def truncated_depth(folder):
    path = folder / "Depth" / "car" / "img1.npz"
    path.write_bytes(path.read_bytes()[:100])


def broken_pair_file(folder):
    path = min((folder / "PairAnnotation" / "test").glob("*img1*:car.json"))
    path.write_text('{"src_imname": ')


CASES = [
    corrupt_jpeg, not_a_picture, missing_image, missing_annotation, wrong_size, nan_features, truncated_features, keypoint_outside,
    keypoint_is_text, no_box, empty_box, truncated_depth, broken_pair_file,
]  # fmt: skip


@pytest.mark.parametrize("damage", CASES)
def test_error_names_the_image(folder, damage):
    damage(folder)
    with pytest.raises(SemAlign3DError, match=r"img1.*--on-bad-input skip"):
        run(folder, "out")
    assert not (folder.parent / "out" / "results.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("damage", CASES)
def test_skips_are_listed_counted_and_never_raise_a_score(folder, damage):
    before = run(folder, "before")
    damage(folder)
    after = run(folder, "after", on_bad_input="skip")
    skipped = after["per_category"]["car"]["skipped"]
    assert 1 <= skipped <= 6 and skipped == len(after["skipped"]) == after["all"]["skipped"]
    assert all("img1" in entry["pair"] and entry["reason"] for entry in after["skipped"])
    assert after["per_category"]["car"]["pairs"] == 12 and after["per_category"]["chair"] == before["per_category"]["chair"]
    for metric in ("pck", "pck_dagger", "pck_dagger_inclusive"):
        for alpha in ("0.05", "0.1"):
            for place in (lambda results: results["per_category"]["car"], lambda results: results["all"]):
                old, new = place(before)[metric][alpha], place(after)[metric][alpha]
                assert all(new[name] < old[name] for name in old), (metric, alpha)
    assert after["per_category"]["car"]["pck_scored_only"]["0.1"]["per_image"] > after["per_category"]["car"]["pck"]["0.1"]["per_image"]


def test_method_that_is_bad_at_skipped_pairs_gains_nothing(folder):
    """Even where every skipped point was wrong before, a skip of unknown size does not raise the score per point."""
    before = run(folder, "before", alpha=(0.001,))
    missing_annotation(folder)
    after = run(folder, "after", alpha=(0.001,), on_bad_input="skip")
    for name in before["all"]["pck"]["0.001"]:
        assert after["all"]["pck"]["0.001"][name] <= before["all"]["pck"]["0.001"][name]


def test_pair_that_names_a_missing_image(folder):
    layout = folder / "Layout" / "large" / "test.txt"
    name = layout.read_text().split()[0]
    edit_json(folder / "PairAnnotation" / "test" / f"{name}.json", lambda content: content.update(src_imname="nowhere.jpg"))
    with pytest.raises(SemAlign3DError, match=f"{name}.*nowhere"):
        run(folder, "error")
    results = run(folder, "skip", on_bad_input="skip")
    assert [entry["pair"] for entry in results["skipped"]] == [name] and "nowhere" in results["skipped"][0]["reason"]


def test_zero_common_keypoints_are_counted_and_in_no_mean(folder):
    def hide(content):
        content["kps"] = {k: None for k in content["kps"]}

    edit_json(annotation(folder), hide)
    results = run(folder, "out")
    assert results["per_category"]["car"]["pairs"] == 6
    assert results["per_category"]["car"]["skipped"] == results["per_category"]["car"]["without_common_keypoints"] == 6
    assert {entry["reason"] for entry in results["skipped"]} == {"no common keypoints"}


def test_category_without_any_scorable_pair(folder):
    for index in range(4):
        edit_json(annotation(folder, f"car/img{index}"), lambda content: content.update(kps=dict.fromkeys(content["kps"])))
    results = run(folder, "out")
    assert results["per_category"]["car"]["pck"]["0.1"]["per_image"] is None
    assert results["all"]["pck"]["0.1"]["mean_of_categories"] == results["per_category"]["chair"]["pck"]["0.1"]["per_image"]


def test_keypoint_a_little_outside_is_scored_and_counted(folder):
    def change(content):
        label = next(k for k, value in content["kps"].items() if value)
        content["kps"][label] = [content["image_width"], 10]

    edit_json(annotation(folder), change)
    results = run(folder, "out")
    assert results["keypoints_outside_the_image"] > 0 and results["all"]["skipped"] == 0


@pytest.mark.slow
def test_nan_features_of_a_live_backbone(folder, monkeypatch):
    class Broken(FeatureBackbone):
        name, channels = "broken", 16

        def __init__(self, root):
            self.inner = backbones.create("precomputed:sim", root)

        def extract(self, image):
            found = self.inner.extract(image)
            if image.name == "car/img1":
                found.values[0, 0, 0] = float("inf")
            return found

    monkeypatch.setitem(backbones.BACKBONES, "broken", lambda argument, dataset_root=None: Broken(dataset_root))
    with pytest.raises(SemAlign3DError, match=r"car/img1.*NaN"):
        run(folder, "out", backbone="broken")
    assert run(folder, "skip", backbone="broken", on_bad_input="skip")["all"]["skipped"] == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": ("sofa",)}, "sofa.*car, chair"),
        ({"method": "magic"}, "magic.*nearest_neighbour"),
        ({"split": "val"}, "val"),
        ({"backbone": "precomputed:other"}, "other"),
        ({"preset": "fast"}, "no presets"),
    ],
)
def test_unknown_names_list_the_legal_ones(folder, changes, message):
    with pytest.raises(SemAlign3DError, match=message):
        run(folder, "out", **changes)


def test_unwritable_output_is_found_out_first(folder):
    (folder.parent / "file").write_text("")
    with pytest.raises(SemAlign3DError, match="cannot write"):
        run(folder, "file/out", backbone="precomputed:does-not-even-exist")


@pytest.mark.parametrize("changes", [{"alpha": ()}, {"alpha": (-0.1,)}, {"workers": 0}, {"limit": 0}])
def test_impossible_options(folder, changes):
    with pytest.raises(SemAlign3DError, match=r"alpha|workers|limit"):
        run(folder, "out", **changes)
