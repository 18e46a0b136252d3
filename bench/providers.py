"""What each provider costs: time and memory per image, size and licence of its weights.

    python bench/providers.py [--images 3] [--only dinov2 depth] [--full-size]

Providers whose weights are not on this machine are measured with tiny random models of the same classes, and the table says
so: those times tell that the code runs, not what the real model costs. With --full-size, DINOv2 and SAM are built in their
official size with random weights, which costs what the real ones cost. The parameters in the size column are counted on the
official configurations without their weights. Memory is the largest increase while one image is processed (CUDA) or the
process's peak (CPU).
"""

import argparse
import resource
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from semalign3d_core import backbones, depth, masks, tiny_models
from semalign3d_core.backbones.captioner import ImplicitCaptioner
from semalign3d_core.backbones.fused import FusedBackbone
from semalign3d_core.backbones.geoaware import AggregationNetwork, GeoAwareBackbone
from semalign3d_core.backbones.precision import choose_device, choose_dtype
from semalign3d_core.backbones.stable_diffusion import StableDiffusionBackbone
from semalign3d_core.backbones.transformers_vit import TransformerBackbone
from semalign3d_core.depth.transformers_depth import TransformersDepth
from semalign3d_core.errors import SemAlign3DError
from semalign3d_core.evidence import ImageInput
from semalign3d_core.masks.sam import SamMasks
from semalign3d_core.weights import KNOWN


def tiny_diffusion(**options):
    return StableDiffusionBackbone(*tiny_models.tiny_diffusion(), "tiny", **options)


def tiny_fused():
    captioner = ImplicitCaptioner(*tiny_models.tiny_captioner(), "tiny")
    return FusedBackbone(tiny_diffusion(captioner=captioner), TransformerBackbone(tiny_models.tiny_transformer(), "tiny"))


def tiny_geoaware():
    return GeoAwareBackbone(tiny_fused(), AggregationNetwork((16, 32, 32, 24), 128), "tiny")


# name -> (real provider, stand-in without weights, weights it needs)
PROVIDERS = {
    "compact": (lambda: backbones.create("compact"), None, ()),
    **{
        f"dinov2:{size}": (
            lambda size=size: backbones.create(f"dinov2:{size}"),
            lambda: TransformerBackbone(tiny_models.tiny_transformer("dinov2"), "tiny"),
            (f"dinov2:{size}",),
        )
        for size in ("small", "base", "large", "giant")
    },
    "dinov3:base": (
        lambda: backbones.create("dinov3:base"),
        lambda: TransformerBackbone(tiny_models.tiny_transformer("dinov3_vit"), "tiny"),
        ("dinov3:base",),
    ),
    "sd:1.5": (lambda: backbones.create("sd:1.5"), tiny_diffusion, ("sd:1.5",)),
    "sd_dinov2": (lambda: backbones.create("sd_dinov2"), tiny_fused, ("sd:1.5", "dinov2:base")),
    "geoaware": (None, tiny_geoaware, ("sd:1.5", "dinov2:base", "clip:large_336")),
    "depth_anything_v2:small": (
        lambda: depth.create("depth_anything_v2:small"),
        lambda: TransformersDepth(tiny_models.tiny_depth(), "tiny"),
        ("depth_anything_v2:small",),
    ),
    "sam:base": (lambda: masks.create("sam:base"), lambda: SamMasks(tiny_models.tiny_sam(), "tiny"), ("sam:base",)),
    "sam2:tiny": (lambda: masks.create("sam2:tiny"), lambda: SamMasks(tiny_models.tiny_sam2(), "tiny"), ("sam2:tiny",)),
}


def call(provider, image):
    """Runs a provider of any kind on one image."""
    if hasattr(provider, "extract"):
        return provider.extract(image)
    if hasattr(provider, "estimate"):
        return provider.estimate(image)
    return provider.segment(image, box=(image.width // 4, image.height // 4, 3 * image.width // 4, 3 * image.height // 4))


def measure(provider, images):
    """(median seconds, spread in seconds, MiB) per image, after one for warming up."""
    call(provider, images[0])
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for image in images:
        start = time.perf_counter() if cuda else time.process_time()
        call(provider, image)
        if cuda:
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() if cuda else time.process_time()) - start)
    memory = torch.cuda.max_memory_allocated() / 2**20 if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return statistics.median(seconds), max(seconds) - min(seconds), memory


def make(real, stand_in):
    """(provider, what it is): the real one where its weights are, else the stand-in; (None, reason) where there is neither."""
    try:
        if real is not None:
            return real(), "real weights"
        reason = "needs a checkpoint"
    except SemAlign3DError as error:
        reason = str(error).split(";")[0]
    return (stand_in(), "TINY RANDOM MODEL") if stand_in is not None else (None, reason)


DINOV2_SIZES = {"small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16), "giant": (1536, 40, 24)}


def official_dinov2(size):
    """DINOv2 of the official size with random weights."""
    from transformers import Dinov2Config, Dinov2Model

    width, layers, heads = DINOV2_SIZES[size]
    shape = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "image_size": 518, "patch_size": 14}
    return Dinov2Model(Dinov2Config(**shape, use_swiglu_ffn=size == "giant"))


def official_sam():
    """SAM of the official base size with random weights."""
    from transformers import SamConfig, SamModel

    return SamModel(SamConfig())


def full_size(name):
    """The provider ``name`` in its official size with random weights, or None where this script cannot build it."""
    device = choose_device()
    options = {"device": device, "dtype": choose_dtype(None, device)}
    if name.startswith("dinov2:"):
        return TransformerBackbone(official_dinov2(name.removeprefix("dinov2:")), "random", **options)
    return SamMasks(official_sam(), "random", **options) if name == "sam:base" else None


def counted_parameters():
    """{name: millions of parameters} of official configurations, built without weights."""
    with torch.device("meta"):
        found = {f"dinov2:{size}": official_dinov2(size) for size in DINOV2_SIZES}
        found |= {"sam:base": official_sam(), "geoaware post-processor": AggregationNetwork()}
    return {name: sum(p.numel() for p in model.parameters()) / 1e6 for name, model in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], help="parts of provider names")
    parser.add_argument("--full-size", action="store_true", help="official sizes with random weights where that is possible")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    images = [ImageInput(rng.integers(0, 256, (375, 500, 3), dtype=np.uint8)) for _ in range(options.images)]
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads, CPU time"
    print(f"images of 500 x 375 pixels; {device}; torch {torch.__version__}\n")
    print("| provider | seconds / image | spread | peak MiB | weights MB | licence | measured with |\n|---|---|---|---|---|---|---|")
    for name, (real, stand_in, needs) in PROVIDERS.items():
        if options.only and not any(part in name for part in options.only):
            continue
        size = sum(KNOWN[n].megabytes for n in needs)
        licence = ", ".join(dict.fromkeys(KNOWN[n].licence for n in needs)) or "Apache-2.0"
        provider, what = make(real, stand_in)
        if options.full_size and what != "real weights" and (built := full_size(name)) is not None:
            provider, what = built, "official size, random weights"
        cost = "| - | - | - |" if provider is None else "| {:.3f} | {:.3f} | {:.0f} |".format(*measure(provider, images))
        print(f"| {name} {cost} {size:.0f} | {licence} | {what} |", flush=True)
    print("\nparameters counted on official configurations (millions; the table of weights says):")
    for name, millions in counted_parameters().items():
        stated = f" ({KNOWN[name].parameters})" if name in KNOWN else ""
        print(f"  {name}: {millions:.2f}{stated}")


if __name__ == "__main__":
    main()
