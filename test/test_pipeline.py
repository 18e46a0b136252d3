"""The pipeline that node and command line share: demonstrations, what replaces the providers, and what does not fit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from simulated_category import PICTURE, OneImage

from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.alignment.result import REFRESH
from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.geometry.mask_field import mask_box, square_around
from semalign3d_core.perception.evidence import DepthMap, FeatureMap, ImageInput
from semalign3d_core.pipeline import Demonstration, Pipeline, PipelineConfig, create_pipeline, load_demonstration
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError


@pytest.fixture(scope="module")
def aligner(model):
    return Aligner(model)


@pytest.mark.slow
def test_what_is_given_replaces_the_providers(category, model, aligner):
    truth = category.image(3)
    provider = OneImage(truth)
    pipeline = Pipeline(model, provider, aligner, provider, provider)
    camera = PinholeCamera.from_pixels(truth.evidence.camera.matrix_pixels(), 240, 240)
    depth = DepthMap(truth.evidence.depth.values * 2, "disparity")
    result = pipeline.process(ImageInput(PICTURE), camera=camera, depth=depth, mask=truth.evidence.mask)
    assert provider.asked == 0 and result.matches is None
    assert result.evidence.depth is depth and result.evidence.camera is camera
    torch.testing.assert_close(result.alignment.camera.focal, camera.focal)  # a measured focal length is not optimised
    pipeline.process(ImageInput(PICTURE))
    assert provider.asked == 2


def test_an_empty_mask_is_no_mask(category, model, aligner):
    pipeline = Pipeline(model, OneImage(category.image(3)), aligner)
    assert pipeline.process(ImageInput(PICTURE), mask=torch.zeros(240, 240, dtype=torch.bool)).evidence.mask is None


def test_a_known_direction_of_gravity_counts_and_a_wrong_one_is_refused(category, model, aligner):
    pipeline = Pipeline(model, OneImage(category.image(3)), aligner)
    with pytest.raises(InputError, match="up is"):
        pipeline.process(ImageInput(PICTURE), up=(0, 0, 0))
    with pytest.raises(InputError, match="up is"):
        pipeline.process(ImageInput(PICTURE), up=(0, float("nan"), 1))
    upright = (pipeline.process(ImageInput(PICTURE)).alignment.rotation @ aligner.views.upright).numpy()
    right, wrong = (pipeline.process(ImageInput(PICTURE), up=sign * 9.81 * upright) for sign in (1, -1))
    np.testing.assert_allclose(np.linalg.norm(right.evidence.up), 1)
    assert right.alignment.alternatives.scores.min() < wrong.alignment.alternatives.scores.min() - 0.05


class Closer(OneImage):
    """Wants to look closer; keeps the windows that it is asked for."""

    close_up = 0.25

    def __init__(self, truth):
        super().__init__(truth)
        self.windows = []

    def extract(self, image):
        self.windows.append(image.window)
        features, cells = self.evidence.features, self.evidence.features.grid.cells
        grid = replace(features.grid, window=image.window)
        return FeatureMap(features.sample(grid.cell_centres()).T.unflatten(1, (cells, cells)), grid)


def test_a_backbone_that_wants_to_look_closer_gets_the_surroundings_of_the_mask(category, model, aligner):
    truth = category.image(3)
    backbone, window = Closer(truth), square_around(mask_box(truth.evidence.mask.numpy()), 0.25)
    pipeline = Pipeline(model, backbone, aligner, mask_source=OneImage(truth))
    pipeline.process(ImageInput(PICTURE), mask=truth.evidence.mask)
    pipeline.process(ImageInput(PICTURE))
    assert backbone.windows == [window, window]  # one look each, whether the mask was given or a mask_source found it
    Pipeline(model, backbone, aligner).process(ImageInput(PICTURE))
    assert backbone.windows[2] is None


@pytest.mark.slow
def test_the_next_frame_is_looked_at_where_the_object_was(category, model, aligner):
    """Only where the object was found; after some frames it is searched for everywhere again."""
    truth = category.image(3)

    class Glancing(OneImage):
        reads_features = glances = True
        looks = 0

        def glance(self, image, box=None):
            self.looks += 1
            return self.evidence.mask

        def segment_features(self, features, image, box=None, points=None):
            return self.evidence.mask

    backbone, mask_source, previous = Closer(truth), Glancing(truth), None
    pipeline = Pipeline(model, backbone, aligner, mask_source=mask_source)
    for frame in range(REFRESH + 2):
        previous = pipeline.process(ImageInput(PICTURE), previous=previous).alignment
        assert previous.found and mask_source.looks == (1 if frame <= REFRESH else 2), frame
    assert set(backbone.windows) == {square_around(mask_box(truth.evidence.mask.numpy()), 0.25)}
    pipeline.process(ImageInput(PICTURE), previous=replace(previous, found=False))
    assert mask_source.looks == 3


def test_only_an_object_that_is_followed_gets_a_quick_look(category, model, aligner):
    truth = category.image(3)

    class Following(Closer):
        quick = 0

        def follow(self, image):
            self.quick += 1
            return replace(self.extract(image), quick=True)

    class Finding(OneImage):
        reads_features = glances = True

        def segment_features(self, features, image, box=None, points=None):
            return self.evidence.mask

    backbone = Following(truth)
    pipeline = Pipeline(model, backbone, aligner, mask_source=Finding(truth))
    first = pipeline.process(ImageInput(PICTURE))
    assert backbone.quick == 0 and not first.evidence.features.quick
    second = pipeline.process(ImageInput(PICTURE), previous=first.alignment)
    assert backbone.quick == 1 and second.evidence.features.quick and second.alignment.tracking.warm_frames == 1
    doubtful = replace(first.alignment, tracking=replace(first.alignment.tracking, score=first.alignment.tracking.score - 1))
    third = pipeline.process(ImageInput(PICTURE), previous=doubtful)  # viewpoints are searched, in all views
    assert backbone.quick == 2 and not third.evidence.features.quick and third.alignment.tracking.warm_frames == 0
    demonstration = Demonstration(ImageInput(PICTURE), ("a",), np.array([[40.0, 40.0]], np.float32))
    pipeline.with_demonstration(demonstration).process(ImageInput(PICTURE), previous=first.alignment)
    assert backbone.quick == 2  # points are carried over by what all views say


def test_more_is_looked_at_where_the_mask_lacks_a_part(category, model, aligner):
    truth = category.image(3)
    backbone, mask = Closer(truth), truth.evidence.mask.clone()
    backbone.close_up = 0.0
    mask[: int(mask.any(1).nonzero().float().mean())] = False  # the lower half is left
    result = Pipeline(model, backbone, aligner).process(ImageInput(PICTURE), mask=mask)
    first, wider = backbone.windows
    assert first == square_around(mask_box(mask.numpy()), 0.0) and wider[1] < first[1] and wider[2] > first[2]
    assert result.evidence.features.grid.window in (first, wider) and result.evidence.mask is mask


class Recorder(OneImage):
    """Shows the simulated image small in the middle of a larger one; keeps what it is asked to look at."""

    def __init__(self, truth, any_image=True):
        super().__init__(truth)
        self.any_image, self.seen = any_image, []

    def extract(self, image):
        self.seen.append(image.seen())
        values, grid = self.evidence.features.values, self.evidence.features.grid
        return FeatureMap(values, replace(grid, height=image.height, width=image.width, window=image.window))


@pytest.mark.parametrize("any_image", [True, False])
def test_a_small_object_is_looked_at_again(category, model, aligner, any_image):
    picture, mask = np.zeros((800, 900, 3), np.uint8), torch.zeros(800, 900, dtype=torch.bool)
    picture[400:500, 300:420] = 255
    mask[400:500, 300:420] = True
    backbone = Recorder(category.image(3), any_image)
    result = Pipeline(model, backbone, aligner).process(ImageInput(picture), mask=mask)
    if not any_image:
        assert len(backbone.seen) == 1
        return
    whole, closer = backbone.seen
    assert whole.shape == (800, 900, 3) and closer.shape == (178, 178, 3)
    assert (closer > 128).any(-1).mean() == pytest.approx(100 * 120 / 178**2, abs=0.02)  # a quarter of the object's size around it
    low, high = result.alignment.keypoints_2d.amin(0), result.alignment.keypoints_2d.amax(0)
    assert (low > torch.tensor([240.0, 340.0])).all() and (high < torch.tensor([480.0, 560.0])).all()  # pixels of the whole image


def test_points_of_the_demonstration_come_back_to_themselves(category, model, aligner):
    truth = category.image(3)
    points = truth.keypoints[truth.visible].numpy()
    demonstration = Demonstration(ImageInput(PICTURE), tuple(f"p{i}" for i in range(len(points))), points)
    pipeline = Pipeline(model, OneImage(truth), aligner, demonstration=demonstration)
    assert pipeline.demonstration_alignment.found
    matches = pipeline.process(ImageInput(PICTURE)).matches
    distance = np.linalg.norm(matches.points.numpy() - points, axis=1)
    assert np.median(distance) < 0.03 * 240, distance
    assert matches.points_3d.shape == (len(points), 3)


def test_labels_that_are_keypoint_names_are_these_keypoints(category, model, aligner):
    truth = category.image(3)
    model = replace(model, present=torch.arange(len(model.present)) != 1)
    points = np.tile(truth.keypoints[2].numpy(), (3, 1))  # all three at the same place, so only the label can tell them apart
    labels = (model.keypoint_names[0], model.keypoint_names[1], "grasp here")
    demonstration = Demonstration(ImageInput(PICTURE), labels, points)
    pipeline = Pipeline(model, OneImage(truth), aligner, demonstration=demonstration)
    moved = pipeline.process(ImageInput(PICTURE)).matches.points.numpy() - points
    assert np.linalg.norm(moved[0] + points[0] - truth.keypoints[0].numpy()) < 0.1 * 240 < np.linalg.norm(moved[0])
    np.testing.assert_allclose(moved[1], moved[2], atol=1e-3)  # an absent keypoint is a point like any other


def test_a_model_of_another_backbone_is_refused(category, model, aligner):
    provider = OneImage(category.image(0))
    provider.name = "another"
    with pytest.raises(InputError, match="built with the backbone 'simulated', not with 'another'"):
        Pipeline(model, provider, aligner)


def write(folder, text):
    Image.fromarray(PICTURE[:20, :30]).save(folder / "a.png")
    path = folder / "demonstration.yaml"
    path.write_text(text)
    return path


def test_a_demonstration_file_is_read_relative_to_itself(tmp_path):
    demonstration = load_demonstration(write(tmp_path, "image: a.png\npoints:\n  cap: [12, 3.5]\n  7: [0, 19]\n"))
    assert demonstration.labels == ("cap", "7") and demonstration.image.rgb.shape == (20, 30, 3)
    np.testing.assert_array_equal(demonstration.points, np.array([[12, 3.5], [0, 19]], np.float32))


def test_the_shipped_example_can_be_read():
    demonstration = load_demonstration(Path(__file__).parents[1] / "config" / "demonstration_example.yaml")
    assert len(demonstration.labels) == 4 and demonstration.image.width == 256


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("image: a.png\n", "exactly the keys image"),
        ("image: a.png\npoints: {cap: [1, 2]}\ncolour: red\n", "exactly the keys image"),
        ("image: a.png\npoints: {}\n", "points is empty"),
        ("image: a.png\npoints: {cap: [1, 99]}\n", "inside the 30 x 20 pixels"),
        ("image: a.png\npoints: {cap: [.nan, 1]}\n", "inside the 30 x 20 pixels"),
        ("image: a.png\npoints: {cap: here}\n", "inside the 30 x 20 pixels"),
        ("image: [", "not valid YAML"),
    ],
)
def test_demonstration_files_with_mistakes_say_which(tmp_path, text, problem):
    with pytest.raises(FileFormatError, match=problem):
        load_demonstration(write(tmp_path, text))


def test_a_demonstration_that_names_no_picture(tmp_path):
    with pytest.raises(MissingFileError, match=r"b\.png"):
        load_demonstration(write(tmp_path, "image: b.png\npoints: {cap: [1, 2]}\n"))
    with pytest.raises(MissingFileError, match=r"nowhere\.yaml"):
        load_demonstration(tmp_path / "nowhere.yaml")


def test_a_device_that_is_not_there():
    with pytest.raises(InputError, match="'cuda:99' is not available here: choose one of auto, cpu"):
        create_pipeline(PipelineConfig(category="chair", device="cuda:99"))


def test_images_are_taken_as_users_have_them(category, model, aligner, tmp_path):
    rgb = np.random.default_rng(0).integers(0, 255, (240, 240, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "image.png")
    pipeline = Pipeline(model, OneImage(category.image(3)), aligner)
    for image in (rgb, str(tmp_path / "image.png"), tmp_path / "image.png", Image.fromarray(rgb), ImageInput(rgb)):
        np.testing.assert_array_equal(pipeline.process(image).evidence.image, rgb)
    with pytest.raises(InputError, match="found dict"):
        pipeline.process({})


def test_the_package_offers_a_pipeline_in_two_lines():
    import semalign3d_core

    assert semalign3d_core.load_pipeline("mug", device="cpu").model.category == "mug"
    assert all(hasattr(semalign3d_core, name) for name in semalign3d_core.__all__)
