"""Networks through OpenVINO: the same results as PyTorch's, kept between processes, and PyTorch where it is not at hand."""

import sys

import pytest
import torch
from torch import nn

from semalign3d_core.perception.backbones.compact import CompactNet
from semalign3d_core.perception.backbones.compiled import compiled
from semalign3d_core.runtime.errors import InputError, MissingDependencyError
from semalign3d_core.runtime.threads import in_parallel

pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'semalign3d[fast]'")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def small_network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()


def kept_files(home):
    return sorted(home.rglob("*.safetensors"))


@pytest.mark.slow
@torch.inference_mode()
def test_the_embedded_network_gives_what_pytorch_gives_for_any_number_of_images(home):
    torch.manual_seed(0)
    network = CompactNet().eval()
    images = torch.rand(3, 3, 192, 192)
    expected, run = network(images), compiled(network, images[:1], "openvino")
    for count in (1, 3):
        found = run(images[:count])
        assert found.shape == expected[:count].shape
        assert (found * expected[:count]).sum(1).min() > 0.999  # cosines: bfloat16 has 8 bits, where the processor has it
    torch.testing.assert_close(run(images), run(images), atol=0, rtol=0)


@torch.inference_mode()
def test_results_do_not_change_later(home):
    network, image = small_network(), torch.rand(1, 3, 8, 8)
    run = compiled(network, image, "openvino")
    first = run(image)
    before = first.clone()
    run(torch.zeros_like(image))
    assert torch.equal(first, before)


def test_threads_do_not_disturb_one_another(home):
    images = torch.rand(12, 1, 3, 8, 8)
    run = compiled(small_network(), images[0], "openvino")
    expected = [run(image) for image in images]
    found = list(in_parallel(run, images, workers=3))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@torch.inference_mode()
def test_what_is_kept_is_of_this_network_and_used_by_the_next_process(home, monkeypatch):
    image = torch.rand(1, 3, 8, 8)
    expected = compiled(small_network(), image, "openvino")(image)
    assert len(kept_files(home)) == 1
    compiled(small_network(1), image, "openvino")(image)  # other weights
    assert len(kept_files(home)) == 2
    monkeypatch.setattr(
        "semalign3d_core.perception.backbones.compiled.OpenVINONetwork._convert", lambda self: pytest.fail("converted again")
    )
    assert torch.equal(compiled(small_network(), image, "openvino")(image), expected)


@torch.inference_mode()
def test_a_damaged_file_is_replaced_and_an_unwritable_home_does_no_harm(home, monkeypatch):
    image = torch.rand(1, 3, 8, 8)
    expected = compiled(small_network(), image, "openvino")(image)
    (path,) = kept_files(home)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-9])
    assert torch.equal(compiled(small_network(), image, "openvino")(image), expected) and path.stat().st_size == size
    (home / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "file"))
    assert torch.equal(compiled(small_network(), image, "openvino")(image), expected)


def test_pytorch_computes_where_it_is_wished_and_where_openvino_is_missing(home, monkeypatch):
    network, image = small_network(), torch.rand(1, 3, 8, 8)
    assert compiled(network, image, "pytorch") is network
    assert compiled(network, image.to("meta"), "auto") is network  # not on the CPU
    assert compiled(network, image, "auto") is not network
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr("semalign3d_core.perception.backbones.compiled.find_spec", lambda name: None)
    assert compiled(network, image, "auto") is network
    with pytest.raises(MissingDependencyError, match=r"semalign3d\[fast\]"):
        compiled(network, image, "openvino")
    with pytest.raises(InputError, match="unknown runtime 'onnx'"):
        compiled(network, image, "onnx")
