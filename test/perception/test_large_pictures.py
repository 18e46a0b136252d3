"""Pictures of large cameras are read in bounded memory, and what is seen of them is what is seen of smaller copies."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from semalign3d_core.geometry.image_grid import LARGEST, SquareGrid
from semalign3d_core.perception.backbones.compact import prepare
from semalign3d_core.perception.evidence import read_image
from semalign3d_core.runtime.pictures import STRIP, TURNS

PROGRAM = """
import resource, sys
from semalign3d_core.geometry.image_grid import SquareGrid
from semalign3d_core.perception.backbones.compact import prepare
from semalign3d_core.perception.evidence import read_image
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
rgb = read_image(sys.argv[1]).rgb
prepare(rgb, SquareGrid(*rgb.shape[:2], 48))
print(peak() - before)
"""


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "CMYK", "1"])
def test_every_turn_of_every_kind_of_picture(tmp_path, mode):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (STRIP + 9, 40, 3), dtype=np.uint8)).convert(mode)
    for number in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = number
        turned = picture if number == 1 else picture.transpose(TURNS[number])
        white = Image.new("RGBA", turned.size, (255, 255, 255, 255))
        expected = Image.alpha_composite(white, turned.convert("RGBA")).convert("RGB") if "A" in mode else turned.convert("RGB")
        for suffix in ("tif", "tif" if mode == "CMYK" else "png"):
            picture.save(tmp_path / f"a.{suffix}", exif=exif)
            np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}").rgb, np.asarray(expected))


@pytest.mark.parametrize("window", [None, (-500, 100, 5000), (200, 300, 6000), (4000, 2500, 9000)])
@pytest.mark.parametrize("padding", ["bottom_right", "centre"])
def test_large_squares_are_seen_as_smaller_ones(window, padding):
    small = np.random.default_rng(1).integers(0, 255, (30, 50, 3), dtype=np.uint8)
    rgb = np.asarray(Image.fromarray(small).resize((5000, 3000), Image.Resampling.BICUBIC))
    grid = SquareGrid(3000, 5000, 48, padding, window)
    assert grid.side > LARGEST
    seen, padded = prepare(rgb, grid), torch.from_numpy(grid.square_picture(rgb, value=128)).permute(2, 0, 1).float()[None]
    expected = torch.nn.functional.interpolate(padded, seen.shape[1:], mode="area")[0] / 255
    assert (seen - expected).abs().mean() < 0.004
    mask = torch.from_numpy(rgb[..., 0] > 128)
    exact = torch.nn.functional.interpolate(grid.square(mask.float()[None])[None], (48, 48), mode="area")[0, 0]
    assert (grid.cells_inside(mask) - exact).abs().mean() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize(("size", "raised"), [((9504, 6336), {}), ((1, 20_000), {"SIDE": "20000", "ASPECT": "20000"})])
def test_memory_of_large_pictures(tmp_path, size, raised):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", size, (90, 120, 30)).save(tmp_path / "a.jpg", exif=exif)
    environment = {f"SEMALIGN3D_MAX_PICTURE_{name}": value for name, value in raised.items()}
    command = ["env", *(f"{name}={value}" for name, value in environment.items()), sys.executable, "-c", PROGRAM, str(tmp_path / "a.jpg")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 500
