"""One cache for several evaluations at once, and how large it gets."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_category import tiny_model
from tiny_dataset import make_dataset

from semalign3d_core.category.storage import save_model
from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.geometry.image_grid import SquareGrid
from semalign3d_core.perception.backbones import FeatureBackbone
from semalign3d_core.perception.cached_providers import CachedBackbone, CachedDepth, CachedMasks
from semalign3d_core.perception.depth import DepthSource
from semalign3d_core.perception.evidence import DepthMap, FeatureMap, read_image
from semalign3d_core.perception.masks import MaskSource
from semalign3d_core.runtime.cache import Cache
from semalign3d_core.runtime.packing import pack

ROOT = Path(__file__).resolve().parents[2]
SPAIR_IMAGES, LIMIT = 1800, 12e9


@pytest.mark.slow
def test_two_evaluations_at_once_share_a_cache_and_agree(tmp_path):
    folder = make_dataset(tmp_path / "data", noise=0.5)
    for category in ("car", "chair"):
        save_model(tiny_model(category), tmp_path / "models" / f"{category}.safetensors")
    arguments = (
        f"--dataset {folder} --backbone precomputed:sim --depth precomputed --masks precomputed --method semalign3d --gallery 0 "
        f"--models {tmp_path / 'models'} --cache {tmp_path / 'cache'} --limit 4 --output"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "semalign3d_core.cli.eval_spair", *arguments.split()]
    started = [
        subprocess.Popen([*command, tmp_path / name, "--workers", workers], env=environment, cwd=ROOT, stderr=subprocess.PIPE)
        for name, workers in (("a", "1"), ("b", "2"))
    ]
    for process in started:
        _, message = process.communicate(timeout=240)
        assert process.returncode == 0, message
    a, b = (json.loads((tmp_path / name / "results.json").read_text()) for name in "ab")
    assert a["all"] == b["all"] and a["hashes"] == b["hashes"] and "damaged" not in a["cache"] | b["cache"]
    assert (tmp_path / "a" / "predictions.jsonl").read_bytes() == (tmp_path / "b" / "predictions.jsonl").read_bytes()
    assert a["cache"]["prepared_computed"] <= 8 and a["cache"].keys() | b["cache"].keys() >= {"prepared_computed", "matches_computed"}


class Provider(FeatureBackbone, MaskSource, DepthSource):
    """A backbone of 768 channels, a depth source and a mask source."""

    name, channels = "random", 768

    def extract(self, image):
        return FeatureMap(torch.nn.functional.normalize(torch.randn(768, 60, 60), dim=0), SquareGrid(image.height, image.width, 60))

    def estimate(self, image):
        return DepthMap(torch.rand(image.height, image.width), "disparity")

    def segment(self, image, box=None, points=None):
        return torch.rand(image.height, image.width) > 0.5


def test_all_images_of_spair_71k_stay_below_twelve_gigabytes(tmp_path):
    """Files of one image of the usual 500 x 375 pixels with 768 channels, times the 1800 images of all splits."""
    folder = make_dataset(tmp_path / "data")
    record = FolderDataset(folder).image("car", "img0")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (375, 500, 3), np.uint8)).save(record.path)
    image, cache = read_image(record.path, record), Cache(tmp_path / "cache")
    CachedBackbone.wrap(Provider(), "random", cache).extract(image)
    CachedDepth.wrap(Provider(), "random", cache).estimate(image)
    CachedMasks.wrap(Provider(), "random", cache).segment(image)
    prepared = {"keypoints": torch.rand(30, 3), "places": torch.rand(330, 2), "seen": torch.rand(330) > 0.5, "alignment": torch.rand(500)}
    cache.fetch("prepared", {}, lambda: pack(prepared))
    sizes = [path.stat().st_size for path in (tmp_path / "cache").rglob("*.safetensors")]
    assert len(sizes) == 4 and 10e9 < SPAIR_IMAGES * sum(sizes) < LIMIT
