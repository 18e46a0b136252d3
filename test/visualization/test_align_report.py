"""The page of an alignment: self-contained, complete, and alive in a browser."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from headless_browser import look_at, needs_browser, width_on_a_telephone
from simulated_category import SIZE, SimulatedCategory

from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.visualization.align_report import align_page, likelihood_maps


@pytest.fixture(scope="module")
def aligned():
    category = SimulatedCategory("chair")
    model, image = category.model(images=10), category.image(3)
    evidence = replace(image.evidence, image=np.full((SIZE, SIZE, 3), 90, np.uint8), name="<b>chair & co.png")
    return model, evidence, Aligner(model).align(evidence)


def _data(html):
    return json.loads(re.search(r"const DATA = (.*?);\n", html, re.S)[1].replace("<\\/", "</"))


def test_page_needs_nothing_else_and_holds_what_the_issue_asks(aligned):
    model, evidence, alignment = aligned
    html = align_page(model, evidence, alignment)
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:)", html) and "http" not in html.replace("http://www.w3.org/2000/svg", "")
    assert "<b>chair" not in html.split("const DATA")[0]
    data = _data(html)
    assert len(data["keypoints"]) == 10 and len(data["cloud"]) == len(model.dense_mu)
    assert len(data["starts"]) == len(alignment.diagnostics.starts_2d)
    assert len(data["trace"]) == len(alignment.diagnostics.trace)
    assert data["starts"][0]["score"] == max(s["score"] for s in data["starts"])
    assert data["candidates"][0]["score"] == min(s["score"] for s in data["candidates"])
    assert data["keypoints"][2]["pixel"] == pytest.approx(alignment.keypoints_2d[2].tolist(), abs=0.01)


def test_likelihood_maps_are_high_at_the_keypoints(aligned):
    import base64

    model, evidence, alignment = aligned
    maps = likelihood_maps(model, evidence)
    values = np.stack([np.frombuffer(base64.b64decode(m), np.uint8) for m in maps]).reshape(10, 60, 60)
    visible = alignment.visible.nonzero()[:, 0]
    cells = evidence.features.grid.pixel_to_cell(alignment.keypoints_2d).round().long().clamp(2, 57)
    near = [values[k, cells[k, 1] - 2 : cells[k, 1] + 3, cells[k, 0] - 2 : cells[k, 0] + 3].max() for k in visible]
    assert np.mean(near) > 150 > 3 * np.mean(values)


def test_missing_diagnostics_absent_keypoints_and_pictures_are_left_out(aligned):
    model, evidence, alignment = aligned
    pixels = alignment.keypoints_2d.clone()
    pixels[0] = torch.nan
    bare = replace(alignment, diagnostics=None, alternatives=None, keypoints_2d=pixels, found=False, energy=float("nan"))
    absent = replace(model, present=torch.arange(10) > 0)
    data = _data(align_page(absent, replace(evidence, image=None), bare))
    assert data["starts"] == data["candidates"] == data["trace"] == [] and data["energy"] is None
    assert data["keypoints"][0]["pixel"] is None and data["maps"][0] is None and data["picture"] is None
    assert data["ghostIndex"] == list(range(1, 10))


def test_the_object_is_there_in_3d(aligned):
    model, evidence, alignment = aligned
    solid = _data(align_page(model, evidence, alignment))["solid"]
    np.testing.assert_allclose(solid["points"], alignment.cloud_3d, atol=1e-4)
    np.testing.assert_allclose(solid["keypoints"], alignment.keypoints_3d, atol=1e-4)
    assert solid["index"] == list(range(10)) and [90, 90, 90] in solid["colours"]


@pytest.mark.slow
@needs_browser
def test_the_page_fits_a_telephone(aligned, tmp_path):
    assert width_on_a_telephone(align_page(*aligned), tmp_path) <= 420


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("complete", [True, False])
def test_page_is_alive_in_a_browser(aligned, tmp_path, complete):
    model, evidence, alignment = aligned
    if not complete:
        evidence, alignment = replace(evidence, image=None), replace(alignment, diagnostics=None, alternatives=None, found=False)
    file = tmp_path / "align.html"
    file.write_text(align_page(model, evidence, alignment))
    dom, shot = look_at(file, tmp_path, size="1300,1400")
    assert 'data-ready="yes"' in dom
    assert dom.count("<tr") >= 10 + (len(alignment.diagnostics.starts_2d) if complete else 0)
    assert ("was not found in this image" in dom.split("<script>")[0]) != complete
    assert ("polyline" in dom.split("<script>")[0]) == complete
    import cv2

    picture = cv2.imread(str(shot))
    assert picture is not None and len(np.unique(picture.reshape(-1, 3), axis=0)) > 100
