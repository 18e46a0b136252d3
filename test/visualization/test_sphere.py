"""Pictures of the sphere: colours say where on it a cell lies, and the ball shows what faces us."""

import numpy as np
import torch
from headless_browser import needs_browser, width_on_a_telephone

from semalign3d_core.geometry.image_grid import SquareGrid
from semalign3d_core.pages.page import figures
from semalign3d_core.visualization.sphere import draw_ball, over_picture, pca_colours, sphere_colours, sphere_pictures
from semalign3d_core.visualization.sphere_page import ImageOnSphere, sphere_page


def test_opposite_places_have_opposite_colours():
    colours = sphere_colours(torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 0, 1]])).astype(int)
    assert (abs(colours[0] + colours[1] - 255) <= 1).all()
    assert colours[2].argmax() == 2


def test_only_the_object_is_coloured():
    rgb, mask = np.full((20, 30, 3), 200, np.uint8), np.zeros((20, 30), bool)
    mask[5:15, 10:20] = True
    red = np.tile(np.array([255, 0, 0], np.uint8), (6, 6, 1))
    shown = over_picture(rgb, red, SquareGrid(20, 30, 6), mask)
    assert (shown[~mask] == 200).all()
    assert (shown[mask][:, 0] > shown[mask][:, 1] + 100).all()


def test_a_point_that_faces_us_is_drawn_over_one_behind_the_ball():
    black = [0, 0, 0]
    front, behind = draw_ball([[0, 0, 1]], [black]), draw_ball([[0, 0, -1]], [black])
    middle = front.shape[0] // 2
    assert front[middle, middle].max() < 60 < behind[middle, middle].min()
    turned = draw_ball([[1, 0, 0]], [black], view=(90, 0))
    assert turned[middle, middle].max() < 60
    right = draw_ball([[0.9, 0, 0.19**0.5]], [black])
    assert right[middle, int((0.5 + 0.46 * 0.9) * right.shape[1])].max() < 60


def test_main_directions_separate_two_kinds_of_cells():
    values = torch.zeros(5, 4, 4)
    values[0, :, :2], values[1, :, 2:] = 1, 1
    values += 0.01 * torch.randn(values.shape, generator=torch.Generator().manual_seed(0))
    colours = pca_colours(values).astype(int)
    assert abs(colours[:, :2, 0].mean() - colours[:, 2:, 0].mean()) > 150


def test_all_pictures_of_an_image():
    generator = torch.Generator().manual_seed(0)
    sphere = torch.nn.functional.normalize(torch.randn(3, 6, 6, generator=generator), dim=0)
    rgb, grid = np.zeros((24, 24, 3), np.uint8), SquareGrid(24, 24, 6)
    keypoints = torch.tensor([[4.0, 4], [20, 20], [torch.nan, torch.nan]])
    found = sphere_pictures(rgb, torch.randn(8, 6, 6, generator=generator), sphere, grid, torch.ones(24, 24, dtype=bool), keypoints)
    assert set(found) == {
        "place on the sphere",
        "the object's cells on the sphere, seen from their middle",
        "three main directions of the features",
        "keypoints on the sphere",
    }
    assert all(picture.dtype == np.uint8 and picture.shape[2] == 3 for picture in found.values())


@needs_browser
def test_the_page_fits_a_telephone(tmp_path):
    pictures = figures({"place on the sphere": np.zeros((300, 900, 3), np.uint8), "cells": np.zeros((320, 320, 3), np.uint8)}, "gallery")
    images = [ImageOnSphere("a_rather_long_name_of_an_image_" * 3, torch.tensor([0.0, 0, 1]), 40.0, pictures)]
    assert width_on_a_telephone(sphere_page("A mapper", {"car": images}), tmp_path) <= 420
