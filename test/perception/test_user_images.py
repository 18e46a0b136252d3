"""Images as users have them: one picture in every form that is taken gives the same pixels."""

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from semalign3d_core.perception.evidence import as_image, several
from semalign3d_core.runtime.errors import FileFormatError, InputError

RGB = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)


def png():
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "PNG")
    return file.getvalue()


def test_every_form_gives_the_same_pixels(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    tensor = torch.from_numpy(RGB).permute(2, 0, 1)
    same = [tmp_path / "a.png", str(tmp_path / "a.png"), png(), bytearray(png()), Image.fromarray(RGB), RGB, RGB / 255, tensor]
    same += [(RGB / 255).astype(np.float32), tensor / 255, (tensor / 255).half().requires_grad_()]
    for image in same:
        np.testing.assert_array_equal(as_image(image).rgb, RGB, err_msg=type(image).__name__)


def test_the_colour_order_is_said_not_guessed(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), RGB[..., ::-1])
    read = cv2.imread(str(tmp_path / "a.png"))
    np.testing.assert_array_equal(as_image(read, "bgr").rgb, RGB)
    np.testing.assert_array_equal(as_image(torch.from_numpy(read).permute(2, 0, 1), "bgr").rgb, RGB)
    np.testing.assert_array_equal(as_image(tmp_path / "a.png", "bgr").rgb, RGB)  # files know their own
    with pytest.raises(InputError, match="choose rgb, or bgr"):
        as_image(RGB, "gbr")


def test_grey_and_transparent_arrays():
    grey = RGB[..., 0]
    for image in (grey, grey[..., None], torch.from_numpy(grey)[None]):
        np.testing.assert_array_equal(as_image(image).rgb, np.repeat(grey[..., None], 3, 2))
    transparent = np.dstack([RGB, np.zeros((7, 9), np.uint8)])
    assert (as_image(transparent).rgb == 255).all()
    transparent[..., 3] = 255
    np.testing.assert_array_equal(as_image(transparent, "bgr").rgb, RGB[..., ::-1])


def test_lists_and_batch_axes_are_several_images():
    batch = np.stack([RGB, 255 - RGB])
    for images in (list(batch), tuple(batch), batch, torch.from_numpy(batch).permute(0, 3, 1, 2), [RGB, Image.fromarray(255 - RGB)]):
        first, second = (as_image(image) for image in several(images))
        np.testing.assert_array_equal(first.rgb, RGB)
        np.testing.assert_array_equal(second.rgb, 255 - RGB)
    assert several([]) == [] and several(RGB) is None and several("a.png") is None


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (7, "found int"),
        (None, "found NoneType"),
        (RGB.astype(np.int64), "expected uint8 in 0..255 or floating point in 0..1, found int64"),
        (RGB.astype(np.float32), "divide by 255"),
        (np.full((4, 4, 3), np.nan), "divide by 255"),
        (RGB.transpose(2, 0, 1), r"channels last, found shape \(3, 7, 9\)"),
        (torch.from_numpy(RGB), r"channels first, found shape \(7, 9, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), "found shape"),
        (RGB[0, 0], "found shape"),
    ],
)
def test_what_is_no_image_is_refused_with_what_to_do(image, problem):
    with pytest.raises(InputError, match=problem):
        as_image(image)


@pytest.mark.parametrize("content", [b"", b"no picture", png()[:60]])
def test_bytes_of_no_image_file(content):
    with pytest.raises(FileFormatError, match="image: its"):
        as_image(content)
