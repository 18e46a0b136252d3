"""What each provider costs: time and memory per image, size and licence of its weights.

    python bench/providers.py [--only dinov2: sam2] [--images 3]           # a table for docs/weights.md
    python bench/providers.py --device cuda --compare                      # half against single precision

Networks are built in their official sizes with random weights, which costs what the real ones cost; where the real weights are on
this machine, those are taken, and the table says so. On the CPU each provider runs in a process of its own on one thread: time is
CPU time, memory the largest resident set of that process, Python and libraries included. On CUDA time is elapsed time and
memory the largest allocation. A provider that takes longer than --patience seconds is measured on one image, others on --images.
--compare runs each network in single and in half precision with the same random weights, on the same images, and
prints how far apart the answers are. Providers whose library is missing are listed with the reason.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

THREADS = "1"
HEAD = "| provider | seconds / image | images | peak MiB | weights MB | licence | measured with |\n|---|---|---|---|---|---|---|"


def providers():
    """{spelling: (function(device, dtype) that makes it in its official size, weights it needs)}; dtype None: the default."""
    import official_models as official

    from semalign3d_core.learned.geoaware.backbone import GeoAwareBackbone
    from semalign3d_core.learned.geoaware.network import AggregationNetwork
    from semalign3d_core.perception.backbones.captioner import ImplicitCaptioner
    from semalign3d_core.perception.backbones.compact import CompactBackbone
    from semalign3d_core.perception.backbones.fused import FusedBackbone
    from semalign3d_core.perception.backbones.stable_diffusion import StableDiffusionBackbone
    from semalign3d_core.perception.backbones.transformers_vit import TransformerBackbone
    from semalign3d_core.perception.depth.transformers_depth import TransformersDepth
    from semalign3d_core.perception.masks.sam import SamMasks

    def vit(build, size):
        return lambda device, dtype: TransformerBackbone(on(device, build, size), "random", device=device, dtype=dtype)

    def diffusion(device, dtype, captioner=None):
        networks = on(device, official.stable_diffusion)
        return StableDiffusionBackbone(*networks, "random", captioner=captioner, device=device, dtype=dtype)

    def fused(device, dtype, captioner=None):
        return FusedBackbone(diffusion(device, dtype, captioner), vit(official.dinov2, "base")(device, dtype))

    def geoaware(device, dtype):
        captioner = ImplicitCaptioner(on(device, official.clip_vision), official.captioner_tensors(), "random", device, dtype)
        return GeoAwareBackbone(fused(device, dtype, captioner), AggregationNetwork(), "random", device)

    def depth(size):
        return lambda device, dtype: TransformersDepth(on(device, official.depth_anything, size), "random", device=device, dtype=dtype)

    def masks(build, size):
        return lambda device, dtype: SamMasks(on(device, build, size), "random", device=device, dtype=dtype)

    found = {"compact": (lambda device, dtype: CompactBackbone(device=device), ())}
    found |= {f"dinov2:{size}": (vit(official.dinov2, size), (f"dinov2:{size}",)) for size in (*official.VITS, "base_registers")}
    found |= {f"dinov3:{size}": (vit(official.dinov3, size), (f"dinov3:{size}",)) for size in ("small", "base", "large")}
    found |= {"sd:1.5": (diffusion, ("sd:1.5",)), "sd_dinov2": (fused, ("sd:1.5", "dinov2:base"))}
    found["geoaware"] = geoaware, ("sd:1.5", "dinov2:base", "clip:large_336")
    found |= {f"depth_anything_v2:{size}": (depth(size), (f"depth_anything_v2:{size}",)) for size in official.DEPTH_HEADS}
    found |= {f"sam2:{size}": (masks(official.sam2, size), (f"sam2:{size}",)) for size in official.SAM2S}
    return found | {f"sam:{size}": (masks(official.sam, size), (f"sam:{size}",)) for size in official.SAMS}


def on(device, build, *arguments):
    """What ``build`` makes, drawn where it will run: in seconds on CUDA, in minutes on the CPU for the largest networks."""
    import torch

    with torch.device(device):
        return build(*arguments)


def kind_of(name):
    """What :func:`~semalign3d_core.perception.backbones.precision.choose_dtype` knows a provider by."""
    family = name.partition(":")[0]
    if name.endswith("_registers"):
        return "dinov2_with_registers"
    return {"dinov3": "dinov3_vit", "depth_anything_v2": "depth_anything", "sd_dinov2": "sd", "geoaware": "sd"}.get(family, family)


def pictures(count):
    """Pictures of 500 x 375 pixels with structure of all sizes."""
    import numpy as np

    from semalign3d_core.perception.evidence import ImageInput

    rng, found = np.random.default_rng(0), []
    for _ in range(count):
        layers = [np.kron(rng.normal(size=(-(-375 // n), -(-500 // n), 3)), np.ones((n, n, 1)))[:375, :500] for n in (1, 7, 40, 125)]
        found.append(ImageInput((sum(layers) * 30 + 128).clip(0, 255).astype(np.uint8)))
    return found


def call(provider, image):
    """Runs a provider of any kind on one image."""
    if hasattr(provider, "extract"):
        return provider.extract(image)
    if hasattr(provider, "estimate"):
        return provider.estimate(image)
    return provider.segment(image, box=(image.width // 4, image.height // 4, 3 * image.width // 4, 3 * image.height // 4))


def timed(provider, image):
    """(answer, seconds): CPU time, or elapsed time on CUDA."""
    import torch

    cuda = torch.cuda.is_available()
    clock = time.perf_counter if cuda else time.process_time
    start = clock()
    answer = call(provider, image)
    if cuda:
        torch.cuda.synchronize()
    return answer, clock() - start


def measure(provider, images, patience):
    """(median seconds, number of images, MiB); the first image warms up, unless it took longer than ``patience`` seconds."""
    import resource
    import statistics

    import torch

    cuda = torch.cuda.is_available()
    seconds = [timed(provider, images[0])[1]]
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    if seconds[0] < patience:
        seconds = [timed(provider, image)[1] for image in images]
    memory = torch.cuda.max_memory_allocated() / 2**20 if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return statistics.median(seconds), len(seconds), memory


def make(name, device, dtype=None):
    """(provider, what it is): with the real weights where they are on this machine, else with random ones."""
    import torch

    from semalign3d_core.perception import backbones, depth, masks
    from semalign3d_core.perception.backbones.precision import choose_dtype
    from semalign3d_core.runtime.errors import SemAlign3DError

    package = masks if name.startswith("sam") else depth if name.startswith("depth") else backbones
    if dtype is None and name != "geoaware":
        try:
            return package.create(f"{name},device={device}" if name != "compact" else name), "the weights themselves"
        except SemAlign3DError:
            pass  # not on this machine
    torch.manual_seed(0)
    return providers()[name][0](device, dtype or choose_dtype(None, torch.device(device), kind_of(name))), "random weights"


def row(name, options):
    """One line of the table."""
    from semalign3d_core.perception.weights.known import KNOWN

    needs = providers()[name][1]
    size, licence = sum(KNOWN[n].megabytes for n in needs), ", ".join(dict.fromkeys(KNOWN[n].licence for n in needs)) or "Apache-2.0"
    try:
        provider, what = make(name, options.device)
    except ImportError as error:
        return f"| {name} | - | - | - | {size:.0f} | {licence} | {error} |"
    seconds, count, memory = measure(provider, pictures(options.images), options.patience)
    what = "the shipped weights" if name == "compact" else what
    return f"| {name} | {seconds:.3g} | {count} | {memory:.0f} | {size:.0f} | {licence} | {what} |"


def in_a_process_of_its_own(name, options):
    """As :func:`row`, so that the memory is that of this provider alone."""
    command = [sys.executable, __file__, "--row", name, "--images", str(options.images), "--patience", str(options.patience)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": THREADS})
    lines = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    if lines:
        return lines[-1]
    reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
    return f"| {name} | - | - | - | | | ended with {done.returncode}: {reason} |"


def answer_of(provider, image):
    """(numbers to compare, seconds): feature columns (N, C), a depth map (1, N) or mask logits (1, N)."""
    if hasattr(provider, "segment"):
        kept, to_image = [], provider._to_image
        provider._to_image = lambda logits, *sizes: kept.append(logits) or to_image(logits, *sizes)
        _, seconds = timed(provider, image)
        provider._to_image = to_image
        return kept[-1].reshape(1, -1).double(), seconds
    answer, seconds = timed(provider, image)
    values = answer.values.double()
    return (values.flatten(1).T if hasattr(provider, "extract") else values.reshape(1, -1)), seconds


def answers(name, dtype, options):
    """(numbers of every picture, mean seconds) of a provider with random weights, always the same ones, in a number format."""
    provider, images = make(name, options.device, dtype)[0], pictures(options.images)
    answer_of(provider, images[0])  # warms up
    found, seconds = zip(*(answer_of(provider, image) for image in images), strict=True)
    return found, sum(seconds) / len(seconds)


def compared(name, options):
    """Lines of the table: seconds in single and in half precision, largest and mean ``1 - cosine`` between the answers."""
    import torch

    from semalign3d_core.runtime.errors import InputError

    single, slow = answers(name, torch.float32, options)
    for dtype in (torch.float16, torch.bfloat16):
        start = f"| {name} | {str(dtype).removeprefix('torch.')} | {slow:.3g}"
        try:
            half, fast = answers(name, dtype, options)
        except InputError as error:
            yield f"{start} | - | {error} | |"
            continue
        distance = torch.cat([1 - torch.nn.functional.cosine_similarity(a, b, dim=1) for a, b in zip(single, half, strict=True)])
        yield f"{start} | {fast:.3g} | {distance.max():.2e} | {distance.mean():.2e} |"


def compare(names, options):
    """The table of :func:`compared`, for all providers that have a number format to choose."""
    print("| provider | format | single: s / image | half: s / image | largest 1 - cosine | mean |\n|---|---|---|---|---|---|")
    for name in (n for n in names if n != "compact"):
        try:
            for line in compared(name, options):
                print(line, flush=True)
        except ImportError as error:
            print(f"| {name} | - | - | - | {error} | |", flush=True)


def count_parameters():
    """Parameters of the official configurations beside what the table of weights says, both in millions."""
    import official_models as official
    import torch

    from semalign3d_core.learned.geoaware.network import AggregationNetwork
    from semalign3d_core.perception.weights.known import KNOWN

    built = {f"dinov2:{size}": lambda size=size: official.dinov2(size) for size in official.VITS}
    built |= {f"dinov3:{size}": lambda size=size: official.dinov3(size) for size in ("small", "base", "large")}
    built |= {f"depth_anything_v2:{size}": lambda size=size: official.depth_anything(size) for size in official.DEPTH_HEADS}
    built |= {f"sam:{size}": lambda size=size: official.sam(size) for size in official.SAMS}
    built |= {f"sam2:{size}": lambda size=size: official.sam2(size) for size in official.SAM2S}
    built["geoaware post-processor"] = AggregationNetwork
    print("\nparameters of the official configurations (millions; in brackets those of the files; SAM 2's also hold its video memory):")
    with torch.device("meta"):
        for name, build in built.items():
            stated = f" ({KNOWN[name].parameters})" if name in KNOWN else ""
            print(f"  {name}: {sum(p.numel() for p in build().parameters()) / 1e6:.2f}{stated}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], help="parts of provider names")
    parser.add_argument("--patience", type=float, default=20, help="seconds for one image, above which one image is enough")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--compare", action="store_true", help="half against single precision")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # clocks and memory are those of the CPU then
        os.environ.setdefault("OMP_NUM_THREADS", THREADS)
    if options.row:
        print(row(options.row, options))
        return
    import torch

    names = [name for name in providers() if not options.only or any(part in name for part in options.only)]
    device = torch.cuda.get_device_name(0) if options.device != "cpu" else f"CPU, {THREADS} thread, CPU time"
    print(f"images of 500 x 375 pixels; {device}; torch {torch.__version__}\n")
    if options.compare:
        compare(names, options)
        return
    print(HEAD)
    for name in names:
        print(in_a_process_of_its_own(name, options) if options.device == "cpu" else row(name, options), flush=True)
    if not options.only:
        count_parameters()


if __name__ == "__main__":
    main()
