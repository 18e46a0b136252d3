import shutil

import numpy as np
import pytest
from published_format import write_caltech

from semalign3d_core.datasets import open_dataset
from semalign3d_core.datasets.caltech101 import Caltech101Dataset, fill_outline
from semalign3d_core.metrics.mask_transfer import intersection_over_union
from semalign3d_core.runtime.errors import InputError, MissingFileError


@pytest.fixture
def root(tmp_path):
    return write_caltech(tmp_path / "caltech-101")


def test_pairs_carry_the_outlines_of_the_list(root):
    dataset = open_dataset(root)
    assert isinstance(dataset, Caltech101Dataset) and dataset.annotation == "masks"
    assert dataset.categories() == ["Faces", "accordion"]
    (pair,) = dataset.pairs("test")
    assert pair.name == "000001-image_0001-image_0002:accordion" and pair.source.keypoints.shape == (0, 2)
    mask = dataset.mask(pair.source)
    assert mask.shape == (50, 60) and mask[17, 16] and not mask[17, 5] and not mask[11, 16]
    assert 0.7 < intersection_over_union(mask, dataset.mask(pair.target)) < 0.8, "the target's outline is moved by a pixel"


def test_images_carry_the_outlines_of_their_mat_files_relative_to_the_box(root):
    dataset = open_dataset(root)
    for category in ("accordion", "Faces"):
        record = dataset.images(category)[0]
        assert record.attributes["outline"][0].tolist() == [6, 12] and record.box.tolist() == [5, 10, 40, 30]
        assert abs(int(dataset.mask(record).sum()) - 20 * 10) <= 30
    assert [r.name for r in dataset.images("accordion", "test")] == ["image_0001", "image_0002"]


def test_filling_agrees_with_the_area_of_random_polygons():
    rng = np.random.default_rng(0)
    for _ in range(10):
        angle, radius = np.sort(rng.uniform(0, 2 * np.pi, 9)), rng.uniform(20, 45, 9)
        polygon = np.stack([50 + radius * np.cos(angle), 50 + radius * np.sin(angle)], axis=1)
        x, y = polygon.T
        area = 0.5 * abs(x @ np.roll(y, -1) - y @ np.roll(x, -1))
        assert fill_outline(polygon, 100, 100).sum() == pytest.approx(area, rel=0.03)
        assert (fill_outline(polygon[::-1], 100, 100) == fill_outline(polygon, 100, 100)).all()


@pytest.mark.parametrize(
    ("missing", "remedy"),
    [("test_pairs_caltech_with_category.csv", "cnngeometric"), ("101_ObjectCategories", "D1.20086"),
     ("101_ObjectCategories/accordion/image_0002.jpg", "D1.20086"), ("Annotations/Faces_2/annotation_0001.mat", "D1.20086")],
)  # fmt: skip
def test_an_incomplete_download_names_the_file_and_the_page(root, missing, remedy):
    path = root / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(MissingFileError) as error:
        dataset = Caltech101Dataset(root)
        list(dataset.pairs("test"))
        dataset.images("Faces")
    assert missing.rpartition("/")[2] in str(error.value) and remedy in str(error.value)


def test_bad_requests_are_named(root):
    dataset = open_dataset(root)
    with pytest.raises(InputError, match="no split 'val'"):
        dataset.pairs("val")
    with pytest.raises(InputError, match="unknown category 'piano'"):
        dataset.images("piano")
