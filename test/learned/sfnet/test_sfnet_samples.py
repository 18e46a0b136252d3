"""SFNet's training pairs: colours, affine maps, and masks of what both pictures show; folders of pictures with masks."""

import numpy as np
import pytest
import torch
from PIL import Image

from semalign3d_core.learned.sfnet.pictures import canvas, masked_pictures
from semalign3d_core.learned.sfnet.samples import Jitter, affine_map, in_other_colours, inverse, to_cells, training_pair, warp
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError


def scene(seed=0, side=128):
    return torch.rand(3, side, side, generator=torch.Generator().manual_seed(seed))


def test_no_jitter_changes_nothing():
    picture = scene()
    same = in_other_colours(picture, Jitter(0, 0, 0, 0), np.random.default_rng(0))
    torch.testing.assert_close(same, picture, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_each_jitter_keeps_what_it_says_it_keeps(name):
    """Brightness keeps ratios of channels, contrast the mean grey, saturation the grey, hue the largest and smallest channel."""
    picture = 0.3 + 0.3 * scene()
    changed = in_other_colours(
        picture, Jitter(**({"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0} | {name: 0.1})), np.random.default_rng(1)
    )
    grey = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    kept = {
        "brightness": lambda x: x[0] / x[1],
        "contrast": lambda x: (x * grey).sum(0).mean(),
        "saturation": lambda x: (x * grey).sum(0),
        "hue": lambda x: torch.stack([x.amax(0), x.amin(0)]),
    }[name]
    assert (changed - picture).abs().max() > 1e-3
    torch.testing.assert_close(kept(changed), kept(picture), atol=1e-4, rtol=1e-4)


def test_a_map_and_its_inverse_give_the_middle_back():
    noise = np.random.default_rng(3).standard_normal(6)
    smooth = torch.nn.functional.interpolate(scene(side=8)[None], size=(128, 128), mode="bicubic")[0]
    there_and_back = warp(warp(smooth, affine_map(noise)), inverse(affine_map(noise)))
    inside = warp(warp(torch.ones(1, 128, 128), affine_map(noise)), inverse(affine_map(noise)))[0] > 0.999
    assert inside[40:88, 40:88].all()
    torch.testing.assert_close(there_and_back[:, inside], smooth[:, inside], atol=0.02, rtol=0)


def test_masks_keep_only_what_both_show():
    """With equal views both masks are the object; what a shifted source has lost is in neither mask."""
    mask = torch.zeros(1, 160, 160)
    mask[:, 32:128, 32:128] = 1
    still, shifted = np.zeros(6), np.array([0, 0, -1 / 0.15, 0, 0, 0])  # by half a picture to the right
    _, (source, target) = training_pair((scene(side=160),) * 2, mask, (still, still))
    torch.testing.assert_close(source, target)
    assert source[0, 2:8, 2:8].all() and source[0, 0].sum() == 0
    _, (source, target) = training_pair((scene(side=160),) * 2, mask, (shifted, still))
    assert target[0, 3:7, 3:5].all() and target[0, :, 6:].sum() == 0 and source[0, 3:7, 8:].all()


def test_cells_with_a_tenth_of_the_object_belong_to_it():
    mask = torch.zeros(1, 64, 64)
    mask[:, :, :3] = 1
    assert to_cells(mask)[0, :, 0].all() and not to_cells(mask)[0, :, 2:].any()


def test_the_network_sees_the_picture_in_a_black_ring():
    seen = canvas(np.full((50, 90, 3), 255, np.uint8), 8)
    assert seen.shape == (3, 128, 128)
    assert (seen[:, 16:-16, 16:-16] == 1).all() and seen[:, :16].sum() == 0 and seen[:, :, -16:].sum() == 0


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def test_pascal_voc_leaves_out_borders_and_test_pictures(tmp_path):
    """Labels 1 to 20 are objects, 255 is a border; pictures without masks are not used."""
    labels = np.zeros((20, 30), np.uint8)
    labels[5:10], labels[10] = 7, 255
    for name in ("2007_000001", "2007_000002"):
        write(tmp_path / "JPEGImages" / f"{name}.jpg", np.zeros((20, 30, 3), np.uint8))
        write(tmp_path / "SegmentationClass" / f"{name}.png", labels)
    write(tmp_path / "JPEGImages" / "2007_000003.jpg", np.zeros((20, 30, 3), np.uint8))
    (picture,) = masked_pictures(tmp_path, {"2007_000002"})
    rgb, mask = picture.read()
    assert rgb.shape == (20, 30, 3) and (mask[5:10] == 255).all() and mask.sum() == 5 * 30 * 255


def test_plain_folders_and_ours_are_known(tmp_path):
    write(tmp_path / "a" / "images" / "one.png", np.zeros((8, 8, 3), np.uint8))
    write(tmp_path / "a" / "masks" / "one.png", np.full((8, 8), 1, np.uint8))
    assert masked_pictures(tmp_path / "a")[0].read()[1].min() == 255
    write(tmp_path / "b" / "JPEGImages" / "cup" / "one.jpg", np.zeros((8, 8, 3), np.uint8))
    write(tmp_path / "b" / "Segmentation" / "cup" / "one.png", np.zeros((9, 8), np.uint8))
    with pytest.raises(FileFormatError, match=r"one\.png"):
        masked_pictures(tmp_path / "b")[0].read()


def test_folders_that_cannot_be_used_raise(tmp_path):
    with pytest.raises(MissingFileError):
        masked_pictures(tmp_path / "absent")
    with pytest.raises(InputError, match="JPEGImages"):
        masked_pictures(tmp_path)
    write(tmp_path / "masks" / "one.png", np.zeros((8, 8), np.uint8))
    (tmp_path / "images").mkdir()
    with pytest.raises(MissingFileError, match=r"one\.png"):
        masked_pictures(tmp_path)
