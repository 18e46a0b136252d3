import numpy as np
from published.canvas import annotated_labels, canvas_threshold

from semalign3d_core.datasets.canvas import canvas_keypoints, published_subsample
from semalign3d_core.datasets.records import ImageRecord


def record(width, height):
    keypoints = np.array([[0, 0], [np.nan, np.nan], [width - 1, height - 1]], np.float32)
    return ImageRecord("cat", "a", None, height, width, keypoints, np.array([10, 10, 30, 50], np.float32))


def test_a_landscape_image_stands_in_the_middle():
    points = canvas_keypoints(record(420, 210))
    assert points[0].tolist() == [0, 210, 1] and points[1].tolist() == [0, 0, 0] and points[2].tolist() == [838, 628, 1]
    assert canvas_threshold(record(420, 210)) == 80


def test_published_half_visible_rows_are_halved():
    points = canvas_keypoints(record(840, 840), visibility=[1, 1, 0.5])
    assert points[2].tolist() == [419.5, 419.5, 0.25] and points[1].tolist() == [0, 0, 0]


def test_labels_nobody_annotates_are_dropped_and_samples_repeat():
    assert annotated_labels([canvas_keypoints(record(100, 100))] * 2).tolist() == [0, 2]
    names = [f"{i:02d}" for i in range(5)]
    drawn = published_subsample(reversed(names), 20)
    assert len(drawn) == 20 and set(drawn) <= set(names) and drawn == published_subsample(names, 20)
    assert published_subsample(names, 0) == names
