"""The matcher: aligns every image once, and finds points where nearest neighbours of folded features do not."""

import pytest
import torch
from simulated_category import SimulatedCategory

from semalign3d_core.matchers import MATCHERS
from semalign3d_core.runtime.packing import pack, unpack
from semalign3d_core.transfer.config import Transfer


@pytest.mark.slow
def test_matcher_beats_nearest_neighbour_and_aligns_once(monkeypatch):
    category = SimulatedCategory("chair")
    images = [category.image(seed) for seed in range(5)]
    matcher = MATCHERS["semalign3d_keypoints"](model=category.model())
    aligned, align = [], matcher.aligner.align
    monkeypatch.setattr(matcher.aligner, "align", lambda evidence: aligned.append(evidence) or align(evidence))
    prepared = [matcher.prepare(image.evidence) for image in images]
    nearest, errors, baseline = MATCHERS["nearest_neighbour"](), [], []
    for a, source in enumerate(images):
        for b, target in enumerate(images):
            both = source.visible & target.visible
            if a != b:
                points, truth = source.keypoints[both], target.keypoints[both]
                errors.append((matcher.match(prepared[a], prepared[b], points).points - truth).norm(dim=1))
                baseline.append((nearest.match(source.evidence, target.evidence, points).points - truth).norm(dim=1))
    errors, baseline = torch.cat(errors), torch.cat(baseline)
    assert len(aligned) == len(images)
    assert (errors < 15).float().mean() > 0.9  # of objects of 120 to 200 pixels
    assert (errors < 15).float().mean() > (baseline < 15).float().mean() + 0.3


def test_prepared_image_survives_the_cache_and_evidence_is_accepted():
    category = SimulatedCategory("monitor")
    model = category.model(images=10)
    source, target = category.image(0), category.image(1)
    matcher = MATCHERS["semalign3d"](model=model, transfer="fast")
    prepared = matcher.prepare(source.evidence), matcher.prepare(target.evidence)
    direct = matcher.match(source.evidence, target.evidence, source.keypoints)
    stored = []
    for image, evidence in zip(prepared, (source.evidence, target.evidence), strict=True):
        known = {"features": evidence.features}
        structure, tensors = pack(image, known)
        assert sum(t.numel() for t in tensors.values()) < evidence.features.values.numel()
        stored.append(unpack(structure, tensors, known))
    again = matcher.match(*stored, source.keypoints)
    assert torch.allclose(direct.points, again.points, atol=1e-3)
    assert torch.equal(direct.visible, again.visible)


def test_settings_follow_the_preset_and_can_be_given():
    model = SimulatedCategory("chair").model(images=10)
    make = MATCHERS["semalign3d"]
    assert make(model=model).config.keypoint_preference == 0
    assert MATCHERS["semalign3d_keypoints"](model=model).config.keypoint_preference > 0
    assert make(model=model, preset="reference").config.second_step == "argmax"
    own = Transfer(sigma=0.05)
    assert make(model=model, transfer=own).config is own
