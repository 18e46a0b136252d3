"""Stable Diffusion features on a tiny random model: levels, FreeU, crops, captioner, fusion."""

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="needs the extra hf")
pytest.importorskip("diffusers", reason="needs the extra hf")

from tiny_models import tiny_captioner, tiny_diffusion, tiny_transformer

from semalign3d_core.learned.geoaware.backbone import GeoAwareBackbone
from semalign3d_core.learned.geoaware.network import AggregationNetwork
from semalign3d_core.perception.backbones.captioner import ImplicitCaptioner
from semalign3d_core.perception.backbones.diffusion_steps import SlidingCrops, add_noise, co_pca, merge_crops, shared_noise
from semalign3d_core.perception.backbones.freeu import apply_freeu, filter_low_frequencies
from semalign3d_core.perception.backbones.fused import FusedBackbone
from semalign3d_core.perception.backbones.pair_features import pair_features
from semalign3d_core.perception.backbones.stable_diffusion import DiffusionConfig, StableDiffusionBackbone, added_time, recorded_levels
from semalign3d_core.perception.backbones.transformers_vit import TransformerBackbone
from semalign3d_core.perception.evidence import ImageInput
from semalign3d_core.runtime.errors import InputError

SMALL = SlidingCrops(240, 128, 112)  # 15 cells; the published 960, 512, 448 have 60


def picture(height=53, width=37, seed=0):
    return ImageInput(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def backbone(crops=SMALL, captioner=None, **options):
    return StableDiffusionBackbone(*tiny_diffusion(), "tiny", DiffusionConfig(crops=crops, **options), captioner)


@pytest.mark.slow
def test_levels_of_the_published_canvas_have_the_published_sizes():
    levels = backbone(SlidingCrops()).levels(picture())
    shapes = {name: tuple(values.shape) for name, values in levels.items()}
    # the widths of the tiny model are 1/40 of the real one's
    assert shapes == {"s3": (1, 16, 60, 60), "s4": (1, 32, 30, 30), "s5": (1, 32, 15, 15)}


@pytest.mark.slow
@pytest.mark.parametrize("size", [(53, 37), (1, 50), (64, 64)])
def test_unit_norm_features(size):
    found = backbone().extract(picture(*size))
    assert found.values.shape == (80, 15, 15) and found.values.dtype == torch.float32
    torch.testing.assert_close(found.values.norm(dim=0), torch.ones(15, 15))
    assert found.grid.padding == "canvas" and (found.grid.height, found.grid.width) == size


@pytest.mark.slow
def test_the_same_image_gives_the_same_features_whatever_was_drawn_before():
    first = backbone()
    before = first.extract(picture()).values
    torch.randn(7)
    assert torch.equal(first.extract(picture()).values, before)


def test_recorded_state_is_what_enters_the_block_with_freeu():
    vae, unet, text = tiny_diffusion()
    latent, kept, seen = torch.randn(1, 4, 8, 8), {}, {}
    unet.eval()
    with torch.no_grad(), recorded_levels(unet, kept):
        # hooks added later run later: they see the block's input after FreeU
        handles = [
            unet.up_blocks[i].resnets[-1].register_forward_pre_hook(lambda m, a, name=n: seen.update({name: a[0]}))
            for i, n in enumerate(("s5", "s4", "s3"))
        ]
        unet(latent, 50, encoder_hidden_states=text)
        for handle in handles:
            handle.remove()
    assert {name: values.shape[1] for name, values in kept.items()} == {"s5": 32, "s4": 32, "s3": 16}
    for name, values in kept.items():
        assert torch.equal(values, seen[name][:, : values.shape[1]]), name


@pytest.mark.slow
def test_freeu_changes_the_output_and_leaves_no_hooks_behind():
    vae, unet, text = tiny_diffusion()
    latent = torch.randn(1, 4, 8, 8)
    unet.eval()
    with torch.no_grad():
        plain = unet(latent, 50, encoder_hidden_states=text).sample
        with recorded_levels(unet, {}):
            scaled = unet(latent, 50, encoder_hidden_states=text).sample
        with added_time(unet, torch.ones(1, 32)):
            timed = unet(latent, 50, encoder_hidden_states=text).sample
        again = unet(latent, 50, encoder_hidden_states=text).sample
    assert not torch.allclose(plain, scaled) and not torch.allclose(plain, timed) and torch.equal(plain, again)


@pytest.mark.parametrize("width, gain, factor", [(1280, 1.2, 0.9), (640, 1.4, 0.2), (320, 1.0, 1.0)])
def test_freeu_strength_follows_the_width(width, gain, factor):
    hidden, skip = torch.randn(1, width, 8, 8), torch.ones(1, 2, 8, 8)
    scaled, filtered = apply_freeu(hidden, skip)
    torch.testing.assert_close(scaled[:, : width // 2], gain * hidden[:, : width // 2])
    assert torch.equal(scaled[:, width // 2 :], hidden[:, width // 2 :])
    torch.testing.assert_close(filtered, factor * skip)  # a constant is all low frequency


def test_the_filter_keeps_high_frequencies():
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    checkerboard = ((rows + columns) % 2 * 2.0 - 1)[None, None]
    torch.testing.assert_close(filter_low_frequencies(checkerboard, 0.2), checkerboard)


def test_merging_cut_crops_gives_the_whole():
    whole = torch.randn(1, 3, 15, 15)
    origins = SMALL.origins()
    parts = [whole[..., y // 16 : y // 16 + 8, x // 16 : x // 16 + 8] for y, x in origins]
    torch.testing.assert_close(merge_crops(parts, origins, 240, 128), whole)


def test_crops_that_do_not_reach_the_border_are_refused():
    with pytest.raises(InputError, match="do not end at the border"):
        SlidingCrops(960, 512, 400)


def test_noise_is_shared_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    first, second = shared_noise(), shared_noise()
    assert torch.equal(first, second) and torch.equal(torch.randn(3), expected)
    assert (add_noise(torch.zeros(1, 4, 64, 64), 0) - first).abs().max() > 0.5  # little noise at the first step
    assert add_noise(torch.ones(1, 4, 64, 64), 999).mean().abs() < 0.2


@pytest.mark.slow
def test_the_captioner_conditions_text_and_time():
    captioner = ImplicitCaptioner(*tiny_captioner(), "tiny")
    text, time = captioner.condition(torch.rand(1, 3, 128, 128), torch.zeros(1, 7, 12))
    assert text.shape == (1, 7, 12) and time.shape == (1, 32)
    plain, described = backbone(), backbone(captioner=captioner)
    assert plain.name != described.name
    assert not torch.allclose(plain.extract(picture()).values, described.extract(picture()).values)


@pytest.mark.slow
def test_the_pose_experiment_records_hidden_state_and_skip():
    found = backbone(record="concatenated", step=100)
    assert found.channels == found.extract(picture()).values.shape[0] == 136
    assert found.name != backbone().name


def test_co_pca_keeps_distances_when_nothing_is_dropped():
    a, b = torch.randn(9, 5, dtype=torch.float64), torch.randn(7, 5, dtype=torch.float64)
    reduced = co_pca(a, b, dims=5)
    torch.testing.assert_close(torch.cdist(*reduced), torch.cdist(a, b))
    wide = torch.randn(6, 40, dtype=torch.float64), torch.randn(5, 40, dtype=torch.float64)  # fewer tokens than channels
    torch.testing.assert_close(torch.cdist(*co_pca(*wide, dims=11)), torch.cdist(*wide))
    for first, second in ((a, b), wide):
        reduced = torch.cat(co_pca(first, second, dims=2))
        # what is kept is the largest part: the two largest singular values of the centred tokens
        stacked = torch.cat([first, second])
        expected = torch.linalg.svdvals(stacked - stacked.mean(0))[:2]
        torch.testing.assert_close(torch.linalg.svdvals(reduced), expected)


@pytest.mark.slow
def test_shifting_by_the_distance_of_crops_shifts_the_map():
    features = backbone()
    stride = SMALL.stride
    image = picture(SMALL.side, SMALL.side)
    moved = ImageInput(np.roll(image.rgb, -stride, axis=1))
    cells = stride // 16
    before, after = features.levels(image)["s3"], features.levels(moved)["s3"]
    # the left crops of the moved image are the right crops of the image; columns that another crop overlaps are left out
    torch.testing.assert_close(after[..., 1:cells], before[..., cells + 1 : 2 * cells], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(after[..., 1:cells], before[..., 1:cells])


def test_a_network_that_treats_both_sides_alike_mirrors_the_map():
    torch.manual_seed(0)
    network = AggregationNetwork((16, 16), 32, groups=8).eval()
    for parameter in network.parameters():
        if parameter.ndim == 4:  # kernels
            parameter.data = (parameter.data + parameter.data.flip(-1)) / 2
    features = torch.randn(1, 32, 9, 10)
    with torch.no_grad():
        torch.testing.assert_close(network(features.flip(-1)), network(features).flip(-1), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_numbers_beyond_half_precision_are_reported_with_what_to_do():
    vae, unet, text = tiny_diffusion()
    unet.conv_in.bias.data.fill_(1e6)
    features = StableDiffusionBackbone(vae, unet, text, "tiny", DiffusionConfig(crops=SMALL), dtype=torch.bfloat16)
    features.extract(picture())  # bfloat16 has the range of single precision
    unet.conv_in.bias.data.fill_(torch.inf)
    with pytest.raises(InputError, match="NaN or infinity in bfloat16; choose another number format: add ,dtype=float32"):
        features.extract(picture())


@pytest.mark.slow
def test_features_of_a_pair_are_reduced_together_and_count_equally():
    concatenated = FusedBackbone(backbone(record="concatenated", step=100), TransformerBackbone(tiny_transformer(), "tiny", cells=15))
    pair = pair_features(concatenated)
    pair.dims = 10
    a, b = (pair.describe(picture(seed=seed)) for seed in (0, 1))
    found = pair.together(a, b)
    channels = concatenated.transformer.channels
    for tokens in found:
        assert tokens.shape == (225, 3 * 10 + channels)
        torch.testing.assert_close(tokens[:, :30].norm(dim=1), torch.ones(225))
        torch.testing.assert_close(tokens[:, 30:].norm(dim=1), torch.ones(225))
    same = pair.together(a, a)
    assert torch.equal(*same)
    # alone, the levels are not normalised
    alone = pair_features(backbone(record="concatenated"))
    assert alone.together(*(alone.describe(picture(seed=s)) for s in (0, 1)))[0].norm(dim=1).std() > 1e-3
    # and features that do not depend on the pair are the backbone's own
    plain = pair_features(concatenated.transformer)
    described = plain.describe(picture())
    assert torch.equal(plain.together(described, described)[0], concatenated.transformer.raw([picture()])[0].flatten(1).T)


def fused():
    transformer = TransformerBackbone(tiny_transformer(), "tiny", cells=15)
    return FusedBackbone(backbone(), transformer)


@pytest.mark.slow
def test_both_parts_of_the_fusion_count_equally():
    both = fused()
    values, parts = both.extract(picture()).values, both.diffusion.channels
    assert values.shape[0] == both.channels
    half = torch.full((15, 15), 0.5**0.5)
    torch.testing.assert_close(values[:parts].norm(dim=0), half)
    torch.testing.assert_close(values[parts:].norm(dim=0), half)
    # cosine of the fusion = mean of the cosines of its parts
    other = picture(seed=1)
    cosine = (values * both.extract(other).values).sum(0)
    transformer = (both.transformer.extract(picture()).values * both.transformer.extract(other).values).sum(0)
    diffusion = (both.diffusion.extract(picture()).values * both.diffusion.extract(other).values).sum(0)
    torch.testing.assert_close(cosine, (transformer + diffusion) / 2, rtol=1e-3, atol=1e-4)


def test_geoaware_features_are_unit_norm_and_not_negative():
    network = AggregationNetwork((16, 32, 32, 24), 64, groups=8)
    found = GeoAwareBackbone(fused(), network, "tiny").extract(picture()).values
    assert found.shape == (64, 15, 15) and found.min() >= 0
    torch.testing.assert_close(found.norm(dim=0), torch.ones(15, 15))


def test_a_network_of_other_channels_is_refused():
    with pytest.raises(InputError, match="104 channels"):
        GeoAwareBackbone(fused(), AggregationNetwork((16, 16), 32, groups=8), "tiny")
