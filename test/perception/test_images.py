"""Image files of every kind become the same 8-bit RGB picture."""

import numpy as np
import pytest
from PIL import Image

from semalign3d_core.perception.evidence import read_image
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError
from semalign3d_core.runtime.pictures import list_images, read_labels

GREY = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10


def _save(tmp_path, picture, name, **options):
    picture.save(tmp_path / name, **options)
    return read_image(tmp_path / name).rgb


def test_colours_keep_their_order_and_grey_becomes_three_channels(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(_save(tmp_path, Image.fromarray(rgb), "a.png"), rgb)
    assert np.array_equal(_save(tmp_path, Image.fromarray(GREY), "grey.png"), np.repeat(GREY[..., None], 3, 2))


def test_sixteen_bit_uses_the_full_range(tmp_path):
    deep = GREY.astype(np.uint16) * 257 + 3
    assert np.array_equal(_save(tmp_path, Image.fromarray(deep), "deep.png")[..., 1], GREY)


def test_transparent_pixels_become_white_and_palettes_are_resolved(tmp_path):
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = (10, 20, 30, 255)
    rgba[1, 1] = (10, 20, 30, 0)
    read = _save(tmp_path, Image.fromarray(rgba), "alpha.png")
    assert read[0, 0].tolist() == [10, 20, 30]
    assert read[1, 1].tolist() == [255, 255, 255]
    palette = Image.fromarray(GREY).convert("P")
    assert np.array_equal(_save(tmp_path, palette, "palette.png")[..., 0], GREY)
    one_bit = Image.fromarray(GREY > 100)
    assert np.array_equal(_save(tmp_path, one_bit, "bit.png")[..., 2], (GREY > 100) * 255)


def test_exif_orientation_turns_the_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to display
    rgb = np.repeat(GREY[..., None], 3, 2)
    read = _save(tmp_path, Image.fromarray(rgb), "turned.png", exif=exif)
    assert read.shape == (6, 4, 3)
    assert np.array_equal(read, np.rot90(rgb, -1))


def test_floating_point_pictures_must_be_in_range(tmp_path):
    read = _save(tmp_path, Image.fromarray((GREY / 255).astype(np.float32)), "float.tif")
    assert np.array_equal(read[..., 0], GREY)
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "big.tif")
    with pytest.raises(FileFormatError, match=r"big\.tif.*from 0 to 230, expected 0 to 1"):
        read_image(tmp_path / "big.tif")


def test_errors_name_the_file(tmp_path):
    with pytest.raises(MissingFileError, match=r"none\.png does not exist"):
        read_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="is a folder"):
        read_image(tmp_path)
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(FileFormatError, match=r"empty\.png cannot be read"):
        read_image(tmp_path / "empty.png")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for suffix in ("jpg", "png"):
        Image.fromarray(noise).save(tmp_path / f"whole.{suffix}")
        content = (tmp_path / f"whole.{suffix}").read_bytes()
        (tmp_path / f"cut.{suffix}").write_bytes(content[: len(content) // 2])
        with pytest.raises(FileFormatError, match=f"cut.{suffix} cannot be read"):
            read_image(tmp_path / f"cut.{suffix}")


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
def test_labels_of_masks_of_any_mode_ignore_transparency(tmp_path, mode):
    values = np.zeros((4, 6), np.uint16 if mode == "I;16" else np.uint8)
    values[1:3, 2:5] = 1 if mode in ("P", "1") else 200
    if mode == "1":
        picture = Image.fromarray(values > 0)
    elif mode == "P":
        picture = Image.fromarray(values)
        picture.putpalette([0, 0, 0, 0, 0, 0])  # the index says what a pixel is, not its colour
    elif mode == "I;16":
        picture = Image.fromarray(values)
    else:
        picture = Image.fromarray(values).convert(mode)
    picture.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "mask.png") > 0, values > 0)


def test_labels_of_missing_and_damaged_masks(tmp_path):
    with pytest.raises(MissingFileError, match=r"none\.png does not exist"):
        read_labels(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(FileFormatError, match=r"text\.png cannot be read"):
        read_labels(tmp_path / "text.png")


def test_list_images_is_sorted_and_ignores_the_rest(tmp_path):
    for name in ("b.JPG", "a.png", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [p.name for p in list_images(tmp_path)] == ["a.png", "b.JPG"]
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no image"):
        list_images(tmp_path / "none")
    with pytest.raises(MissingFileError, match="does not exist"):
        list_images(tmp_path / "nowhere")
