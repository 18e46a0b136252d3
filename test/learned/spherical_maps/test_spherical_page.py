"""``semalign3d sphere``: the page of a data set and of single images on the sphere of a mapper."""

import re

import pytest
import torch
from ball_world import CHANNELS, write_balls

from semalign3d_core.cli.main import main
from semalign3d_core.learned.spherical_maps.network import SphericalMaps
from semalign3d_core.learned.spherical_maps.storage import MapperFacts, save_spherical_maps


@pytest.fixture
def world(tmp_path):
    root = write_balls(tmp_path / "balls", images=12)
    torch.manual_seed(0)
    save_spherical_maps(SphericalMaps(CHANNELS, 1), tmp_path / "mapper.safetensors", MapperFacts("ball", False, ("car",)))
    return root, tmp_path / "mapper.safetensors", tmp_path / "page.html"


def test_a_page_of_a_data_set_shows_every_side(world):
    root, mapper, page = world
    options = ["--dataset", str(root), "--backbone", "precomputed:ball", "--masks", "precomputed", "--limit", "4"]
    assert main(["sphere", str(mapper), *options, "--output", str(page)]) == 0
    text = page.read_text()
    seen = [int(value) for value in re.findall(r"seen from (\d+) degrees", text)]
    assert len(seen) == 4 and seen == sorted(seen)
    assert text.count("<img") == 4 * 3 + 4  # of every image colours, ball and main directions; four views of all images
    assert 'src="http' not in text and "<h2>car</h2>" in text


def test_single_images_and_what_does_not_fit(world, capsys):
    root, mapper, page = world
    image = str(root / "JPEGImages" / "car" / "img00.png")
    options = [str(mapper), image, "--backbone", "precomputed:ball", "--masks", "none", "--output", str(page)]
    assert main(["sphere", *options, "--dataset", str(root)]) == 0
    assert page.read_text().count("<h3>") == 1
    assert main(["sphere", str(mapper), image, "--output", str(page)]) == 2
    assert "trained on features of ball" in capsys.readouterr().err
    assert main(["sphere", str(mapper), "--backbone", "precomputed:ball", "--dataset", str(root), "--limit", "0"]) == 2
