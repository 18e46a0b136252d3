"""The solver's steps in C: the same results as PyTorch's, within 1e-4."""

from dataclasses import replace

import pytest
import torch

from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.alignment.gauss_newton import native
from semalign3d_core.geometry.camera import PinholeCamera

needs_compiler = pytest.mark.skipif(native.library() is None, reason="there is no C compiler (cc, or $CC)")


@pytest.fixture
def both_ways(monkeypatch):
    """Returns what a call returns with C and with PyTorch."""

    @torch.inference_mode()
    def results(call):
        found = []
        for in_c in (True, False):
            monkeypatch.setattr(native, "enabled", in_c)
            found.append(call())
        return found

    return results


def assert_equal(first, second):
    for name, allowed in (
        ("keypoints", 1e-4),
        ("rotations", 1e-4),
        ("trace", 1e-4),
        ("focal", 1e-3),
    ):  # focal lengths are hardly observable
        assert (getattr(first, name) - getattr(second, name)).abs().max() < allowed, name
    if first.early is not None:
        torch.testing.assert_close(first.early, second.early, atol=1e-4, rtol=0)


@needs_compiler
@pytest.mark.parametrize("known", ["mask", "no mask", "focal length"])
def test_steps_in_c_give_what_pytorch_gives(chair, known, both_ways):
    category, aligner = chair
    for number in range(4):
        evidence = category.image(number).evidence
        if known == "no mask":
            evidence = replace(evidence, mask=None)
        if known == "focal length":
            camera = evidence.camera
            evidence = replace(
                evidence, camera=PinholeCamera.from_pixels([[400, 0, 120], [0, 400, 120], [0, 0, 1]], camera.height, camera.width)
            )
        with torch.inference_mode():
            observation = aligner.observe(aligner.prepare(evidence))
        cold = both_ways(lambda seen=observation: aligner.solver.solve(seen))
        assert_equal(*cold)
        warm = both_ways(lambda seen=observation, start=cold[0].poses: aligner.solver.refine(seen, start))
        assert_equal(*warm)


@needs_compiler
@pytest.mark.parametrize("weights", [{"background": 0.0}, {"dense": 0.0}, {"sparse": 0.0}])
def test_terms_that_are_left_out_are_left_out_in_c(chair, weights, both_ways):
    category, aligner = chair
    config = replace(aligner.config, energy=replace(aligner.config.energy, **weights))
    aligner = Aligner(aligner.model, config)
    with torch.inference_mode():
        observation = aligner.observe(aligner.prepare(category.image(1).evidence))
    assert_equal(*both_ways(lambda: aligner.solver.solve(observation)))


def test_double_precision_and_machines_without_a_compiler_use_pytorch(monkeypatch):
    assert not native.usable(torch.zeros(1, dtype=torch.float64)) and not native.usable(torch.zeros(1, device="meta"))
    native.library.cache_clear()
    monkeypatch.setenv("CC", "no-such-compiler")
    try:
        assert native.library() is None and not native.usable(torch.zeros(1))
    finally:
        monkeypatch.undo()
        native.library.cache_clear()


def test_an_error_of_the_compiler_is_no_error_of_an_alignment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native, "FLAGS", ("--no-such-flag",))
    native.library.cache_clear()
    try:
        assert native.library() is None and not list(tmp_path.rglob("*.so"))
    finally:
        native.library.cache_clear()
