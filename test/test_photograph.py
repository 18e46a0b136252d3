"""A real photograph, shipped model, embedded backbone: the cup of scikit-image's ``coffee.png`` (Rachel Michetti, CC0)."""

from pathlib import Path

import pytest
import torch

from semalign3d_core.perception.evidence import read_image
from semalign3d_core.pipeline import PipelineConfig, create_pipeline

COFFEE, CUP = Path(__file__).parents[1] / "examples" / "photographs" / "coffee.jpg", (172, 18, 408, 308)
PLACES = {"handle_outer": (221, 303), "rim_far": (300, 20), "rim_left": (408, 120), "rim_right": (176, 85)}  # read off the picture


@pytest.fixture(scope="module")
def pipeline():
    return create_pipeline(PipelineConfig(category="mug"))


@pytest.mark.slow
def test_the_cup_is_found_in_its_box(pipeline):
    alignment = pipeline.process(read_image(COFFEE), box=CUP).alignment
    assert alignment.found
    for name, place in PLACES.items():
        found = alignment.keypoints_2d[alignment.keypoint_names.index(name)]
        assert (found - torch.tensor(place)).norm() < 0.2 * 290, name  # of the longer side of the box


@pytest.mark.slow
def test_what_is_not_found_is_looked_for_at_the_place_that_the_mask_source_tells(pipeline, monkeypatch):
    image, asked = read_image(COFFEE), []
    monkeypatch.setattr(pipeline.mask_source, "search", lambda image: asked.append(image.name))
    assert not pipeline.process(image).alignment.found and len(asked) == 1  # told of no place: as at the first look
    monkeypatch.setattr(pipeline.mask_source, "search", lambda image: CUP)
    assert pipeline.process(image).alignment.found
    monkeypatch.setattr(pipeline.mask_source, "search", lambda image: pytest.fail("asked although there is a box"))
    pipeline.process(image, box=(0, 0, 40, 40))
