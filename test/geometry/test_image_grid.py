"""The one owner of padding, resizing, cells and flips: placements, round trips, sampling."""

import numpy as np
import pytest
import torch
from PIL import Image

from semalign3d_core.geometry.image_grid import (
    CANVAS_SIDE,
    DIFFUSION_CANVAS_SIDE,
    PADDINGS,
    SquareGrid,
    bilinear,
    canvas_placement,
    cut_square,
    keypoints_to_canvas,
    mirror_image,
    mirror_points,
    mirror_square,
    pad_square,
    patch_index,
    resize_pad,
)
from semalign3d_core.runtime.errors import InputError

SIZES = [(375, 500), (500, 375), (64, 64), (333, 500), (53, 37), (1, 50), (50, 1)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", [CANVAS_SIDE, DIFFUSION_CANVAS_SIDE])
def test_the_published_canvas(size, side):
    height, width = size
    rgb = np.random.default_rng(0).integers(1, 256, (*size, 3), dtype=np.uint8)
    canvas = resize_pad(rgb, side)
    assert canvas.shape == (side, side, 3) and canvas.dtype == np.uint8
    # the longer side fills the canvas, the other is rounded half to even and stands in the middle, the odd pixel behind it
    rows, columns = (max(1, int(np.around(side * length / max(size)))) for length in size)
    top, left = (side - rows) // 2, (side - columns) // 2
    expected = np.asarray(Image.fromarray(rgb).resize((columns, rows), Image.Resampling.LANCZOS))
    assert np.array_equal(canvas[top : top + rows, left : left + columns], expected)
    outside = canvas.copy()
    outside[top : top + rows, left : left + columns] = 0
    assert not outside.any()
    edge = resize_pad(rgb, side, fill="edge")
    assert np.array_equal(edge[0, left], canvas[top, left]) and np.array_equal(edge[-1, left], canvas[top + rows - 1, left])


def test_an_image_of_the_canvas_s_size_is_left_alone():
    rgb = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    assert np.array_equal(resize_pad(rgb, 60), rgb)


def test_halves_are_rounded_to_even():
    scale, offset = canvas_placement(16, 1)  # 840 / 16 = 52.5 rows
    assert scale == 52.5 and offset == (0, (840 - 52) // 2)


@pytest.mark.parametrize("size", [(375, 500), (500, 375), (53, 37)])
def test_keypoints_stand_where_their_pixels_are(size):
    rgb = np.zeros((*size, 3), np.uint8)
    row, column = size[0] // 3, size[1] // 4
    rgb[row - 2 : row + 3, column - 2 : column + 3] = 255
    rows, columns = np.nonzero(resize_pad(rgb, CANVAS_SIDE)[..., 0] > 127)
    found = keypoints_to_canvas([[column + 0.5, row + 0.5, 1]], size[1], size[0])[0]
    assert abs(columns.mean() + 0.5 - found[0]) < 0.6 and abs(rows.mean() + 0.5 - found[1]) < 0.6
    assert found[2] == 1


def test_patches_are_truncated_and_the_far_border_belongs_to_the_last():
    points = torch.tensor([[0.0, 0.0], [13.99, 14.0], [839.9, 0.0], [840.0, 840.0]])
    assert patch_index(points).tolist() == [0, 60, 59, 3599]


@pytest.mark.slow
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("size", SIZES)
def test_pixels_to_cells_and_back(padding, size):
    grid = SquareGrid(*size, 60, padding)
    pixels = torch.rand(50, 2, dtype=torch.float64) * (torch.tensor([size[1], size[0]]) - 1)
    torch.testing.assert_close(grid.cell_to_pixel(grid.pixel_to_cell(pixels)), pixels)
    centres = grid.cell_centres().reshape(60, 60, 2)
    torch.testing.assert_close(centres[7, 11], grid.cell_to_pixel(torch.tensor([11.0, 7.0])))
    # whole cells cover the padded square: its first and last pixel are half a cell beyond the outer centres
    corner = torch.tensor(grid.offset, dtype=torch.float64)
    ends = grid.pixel_to_cell(torch.stack([-corner - 0.5, grid.side - 0.5 - corner]))
    torch.testing.assert_close(ends, torch.tensor([[-0.5, -0.5], [59.5, 59.5]], dtype=torch.float64))


def test_wrong_grids_are_refused():
    with pytest.raises(InputError, match="choose one of bottom_right, centre, canvas"):
        SquareGrid(4, 4, 2, "left")
    with pytest.raises(InputError, match="must be at least 1"):
        SquareGrid(0, 4, 2)


@pytest.mark.parametrize("padding", PADDINGS)
def test_the_share_of_a_cell_inside_a_mask(padding):
    grid = SquareGrid(40, 80, 8, padding)
    inside = grid.cells_inside(torch.ones(40, 80))
    assert inside.sum() == 32  # half of the square
    rows = {"bottom_right": slice(0, 4), "centre": slice(2, 6), "canvas": slice(2, 6)}[padding]
    assert inside[rows].min() == 1
    left = grid.cells_inside(torch.arange(80).expand(40, 80) < 25)
    torch.testing.assert_close(left[rows][0], torch.tensor([1.0, 1, 0.5, 0, 0, 0, 0, 0]))
    mask = torch.rand(40, 80, generator=torch.Generator().manual_seed(0)) < 0.5
    shares = torch.nn.functional.interpolate(pad_square(mask.float()[None], padding)[None], size=(7, 7), mode="area")[0, 0]
    torch.testing.assert_close(SquareGrid(40, 80, 7, padding).cells_inside(mask), shares)  # also of cells that cut pixels


def test_bilinear_sampling_agrees_with_the_library_and_is_clamped():
    values = torch.randn(3, 7, 9, dtype=torch.float64)
    positions = torch.rand(20, 2, dtype=torch.float64) * torch.tensor([8.0, 6.0], dtype=torch.float64)
    normalised = positions / torch.tensor([8.0, 6.0], dtype=torch.float64) * 2 - 1
    expected = torch.nn.functional.grid_sample(values[None], normalised[None, None], align_corners=True)[0, :, 0].T
    torch.testing.assert_close(bilinear(values, positions), expected)
    torch.testing.assert_close(bilinear(values, torch.tensor([[-3.0, 99.0]], dtype=torch.float64))[0], values[:, 6, 0])
    assert torch.autograd.gradcheck(bilinear, (values.requires_grad_(), (positions.floor() + 0.3).clamp(max=5.6).requires_grad_()))


@pytest.mark.parametrize("padding", ["bottom_right", "centre"])
@pytest.mark.parametrize("size", [(5, 8), (8, 5), (6, 6)])
def test_padding_to_a_square_keeps_the_image(padding, size):
    image = torch.rand(2, *size)
    square = pad_square(image, padding, value=9)
    left, top = SquareGrid(*size, 1, padding).offset
    assert square.shape == (2, max(size), max(size))
    assert torch.equal(square[:, top : top + size[0], left : left + size[1]], image)
    assert (square == 9).sum() == 2 * (max(size) ** 2 - size[0] * size[1])
    picture = np.random.default_rng(2).integers(0, 255, (*size, 3), dtype=np.uint8)
    expected = pad_square(torch.from_numpy(picture).permute(2, 0, 1), padding, value=9).permute(1, 2, 0)
    assert np.array_equal(SquareGrid(*size, 1, padding).square_picture(picture, value=9), expected.numpy())


def test_mirroring_twice_changes_nothing_and_points_go_with_their_pixels():
    image = np.arange(24).reshape(4, 6)
    points = np.array([[1.0, 2.0], [5.0, 0.0]])
    mirrored, moved = mirror_image(image), mirror_points(points, 6)
    assert [mirrored[int(y), int(x)] for x, y in moved] == [image[int(y), int(x)] for x, y in points]
    assert np.array_equal(mirror_image(mirrored), image) and np.array_equal(mirror_points(moved, 6), points)
    assert torch.equal(mirror_image(torch.from_numpy(image)), torch.from_numpy(mirrored))


WINDOWS = [(10, 5, 40), (-7, 20, 60), (60, 30, 45), (-20, -30, 150)]  # inside a picture of 90 x 70 pixels, and reaching beyond it


@pytest.mark.parametrize("window", WINDOWS)
def test_the_grid_of_a_window_is_that_of_the_cut_out_picture(window):
    left, top, side = window
    grid, alone = SquareGrid(70, 90, 12, window=window), SquareGrid(side, side, 12)
    pixels = torch.rand(50, 2, generator=torch.Generator().manual_seed(0)) * 90
    torch.testing.assert_close(grid.pixel_to_cell(pixels), alone.pixel_to_cell(pixels - torch.tensor([left, top])))
    torch.testing.assert_close(grid.cell_to_pixel(grid.pixel_to_cell(pixels)), pixels, atol=1e-4, rtol=0)
    assert grid.side == side and grid.cell_size == alone.cell_size
    mask = torch.rand(70, 90, generator=torch.Generator().manual_seed(1)) < 0.4
    torch.testing.assert_close(grid.cells_inside(mask), alone.cells_inside(cut_square(mask[None], window)[0]))
    assert grid.covered().sum() == cut_square(torch.ones(1, 70, 90), window).sum()
    picture = np.random.default_rng(2).integers(0, 255, (70, 90, 3), dtype=np.uint8)
    cut = cut_square(torch.from_numpy(picture).permute(2, 0, 1), window, value=9)
    assert np.array_equal(grid.square_picture(picture, value=9), cut.permute(1, 2, 0).numpy())
    rows, columns = grid.covered().nonzero().unbind(1)
    assert columns.min() == max(left, 0) and rows.max() == min(top + side, 70) - 1


@pytest.mark.parametrize("window", WINDOWS)
def test_the_mirror_image_of_a_window(window):
    picture = torch.rand(3, 70, 90, generator=torch.Generator().manual_seed(0))
    mirrored = SquareGrid(70, 90, 12, window=window).mirrored()
    assert mirrored.window == mirror_square(window, 90)
    torch.testing.assert_close(mirrored.square(mirror_image(picture)), mirror_image(SquareGrid(70, 90, 12, window=window).square(picture)))


def test_what_a_square_cuts_out():
    picture = torch.arange(12.0).reshape(1, 3, 4)
    assert cut_square(picture, (1, 0, 2)).tolist() == [[[1, 2], [5, 6]]]
    assert cut_square(picture, (3, 1, 3), value=9).tolist() == [[[7, 9, 9], [11, 9, 9], [9, 9, 9]]]
    assert cut_square(picture, (-5, -5, 2), value=9).tolist() == [[[9, 9], [9, 9]]]  # nothing of the picture
    assert cut_square(picture, (40, 1, 2)).shape == (1, 2, 2)


def test_windows_of_no_size_are_refused():
    with pytest.raises(InputError, match="at least 1"):
        SquareGrid(70, 90, 12, window=(0, 0, 0))
