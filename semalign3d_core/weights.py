"""Pretrained weights: which there are, where they lie, what is missing and how to get it.

Nothing is downloaded unless that is asked for: by ``semalign3d doctor --download NAME``, or by setting the environment
variable ``SEMALIGN3D_DOWNLOAD=1``. ``HF_HUB_OFFLINE=1`` forbids it whatever else is set. Revisions are pinned to commits.
"""

import hashlib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from semalign3d_core.errors import MissingWeightsError
from semalign3d_core.files import sha256_of_file
from semalign3d_core.providers import first_line, require

DOWNLOAD_VARIABLE = "SEMALIGN3D_DOWNLOAD"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
FILES = ("*.json", "*.safetensors")
DIFFUSION_FILES = tuple(
    f"{part}/{name}"
    for part, names in {
        "unet": ("config.json", "diffusion_pytorch_model.safetensors"),
        "vae": ("config.json", "diffusion_pytorch_model.safetensors"),
        "text_encoder": ("config.json", "model.safetensors"),
        "tokenizer": ("*",),
    }.items()
    for name in names
)


@dataclass(frozen=True)
class Weights:
    """Weights on the Hugging Face hub.

    id, revision: repository and commit (None: ``main``, not pinned);  parameters: millions, 4 bytes each on disk;
    licence: of the weights;  free: may be used by anybody for anything, so that it may be a default;  patterns: files needed
    """

    id: str
    revision: str | None
    parameters: float
    licence: str
    free: bool = True
    patterns: tuple = FILES

    @property
    def megabytes(self):
        return 4 * self.parameters


# spelling of a provider -> its weights; bench/providers.py counts the parameters of the configurations
KNOWN = {
    "dinov2:small": Weights("facebook/dinov2-small", "ed25f3a31f01632728cabb09d1542f84ab7b0056", 22.1, "Apache-2.0"),
    "dinov2:base": Weights("facebook/dinov2-base", "f9e44c814b77203eaa57a6bdbbd535f21ede1415", 86.6, "Apache-2.0"),
    "dinov2:large": Weights("facebook/dinov2-large", "47b73eefe95e8d44ec3623f8890bd894b6ea2d6c", 304.4, "Apache-2.0"),
    "dinov2:giant": Weights("facebook/dinov2-giant", "611a9d42f2335e0f921f1e313ad3c1b7178d206d", 1136.5, "Apache-2.0"),
    "dinov3:small": Weights("facebook/dinov3-vits16-pretrain-lvd1689m", None, 21.6, "DINOv3 License (gated)", False),
    "dinov3:base": Weights("facebook/dinov3-vitb16-pretrain-lvd1689m", None, 85.7, "DINOv3 License (gated)", False),
    "dinov3:large": Weights("facebook/dinov3-vitl16-pretrain-lvd1689m", None, 303.1, "DINOv3 License (gated)", False),
    "sd:1.5": Weights(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        1066.2,
        "CreativeML OpenRAIL-M",
        False,
        DIFFUSION_FILES,
    ),
    "clip:large_336": Weights(
        "openai/clip-vit-large-patch14-336",
        "ce19dc912ca5cd21c8a653c79e251e808ccabcd1",
        427.9,
        "none stated",
        False,
        ("*.json", "pytorch_model.bin"),
    ),
    "depth_anything_v2:small": Weights(
        "depth-anything/Depth-Anything-V2-Small-hf", "5426e4f0f36572d16453bbda7a8389317b1bef99", 24.8, "Apache-2.0"
    ),
    "depth_anything_v2:base": Weights("depth-anything/Depth-Anything-V2-Base-hf", None, 97.5, "CC-BY-NC-4.0", False),
    "depth_anything_v2:large": Weights(
        "depth-anything/Depth-Anything-V2-Large-hf", "7581137eff8d4e94f6e796d3baea0e9fa79b22d2", 335.3, "CC-BY-NC-4.0", False
    ),
    "depth_anything_v2:metric_indoor": Weights(
        "depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf", "8078d68a9c75a972131914f6afd0c1723be0da7f", 24.8, "Apache-2.0"
    ),
    "depth_anything_v2:metric_outdoor": Weights("depth-anything/Depth-Anything-V2-Metric-Outdoor-Small-hf", None, 24.8, "Apache-2.0"),
    "sam:base": Weights("facebook/sam-vit-base", "70c1a07f894ebb5b307fd9eaaee97b9dfc16068f", 93.7, "Apache-2.0"),
    "sam:huge": Weights("facebook/sam-vit-huge", "87aecf0df4ce6b30cd7de76e87673c49644bdf67", 641.1, "Apache-2.0"),
    "sam2:tiny": Weights("facebook/sam2.1-hiera-tiny", "de431c4043854a71d8101e17995dfe596bf101a5", 38.9, "Apache-2.0"),
    "sam2:small": Weights("facebook/sam2.1-hiera-small", "ee5bba1d82bb8749febdf90f45e84b687142ba03", 46.0, "Apache-2.0"),
    "sam2:large": Weights("facebook/sam2.1-hiera-large", "665f8e2ad61cf5f53d65644ff27c8ee525124610", 224.4, "Apache-2.0"),
}


@dataclass(frozen=True)
class Located:
    """Weights on disk: the folder, the commit it holds (None for a local path) and where it was asked for."""

    folder: Path
    revision: str | None
    source: str

    def digest(self):
        """Hexadecimal SHA-256 of the weight files; the hub's cache already names files by theirs."""
        files = [p for p in sorted(self.folder.rglob("*")) if p.suffix in WEIGHT_SUFFIXES and p.is_file()]
        digests = [_digest(path) for path in files]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _digest(path):
    blob = path.resolve().name
    return blob if re.fullmatch(r"[0-9a-f]{64}", blob) else sha256_of_file(path)


def known_weights(family, argument, default):
    """The :class:`Weights` that ``family:argument`` means: a short name (empty: ``default``) or any hub id or local path."""
    name = f"{family}:{argument or default}"
    return KNOWN.get(name) or next((w for w in KNOWN.values() if w.id == argument), Weights(argument, None, 0, "see its page", False))


def locate(weights, revision=None, may_download=True):
    """Finds :class:`Weights` on disk: a local folder, or the hub's cache; :class:`Located`.

    revision: commit, tag or branch instead of the pinned one;  may_download: False ignores the environment variable.
    Raises :class:`MissingWeightsError` with the command to run.
    """
    folder = Path(weights.id)
    if folder.is_dir():
        return Located(folder, None, weights.id)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", weights.id) or weights.id.startswith("."):
        raise MissingWeightsError(f"the folder {weights.id} does not exist; give one that holds config.json and the weights, or a hub id")
    wanted = revision or weights.revision or "main"
    found = _cached(weights, wanted)
    if found is None and may_download and _downloads_allowed():
        found = download(weights, wanted)
    if found is None:
        raise MissingWeightsError(
            f"the weights {weights.id} (revision {wanted}) are not on this machine; get them with:  {download_command(weights, wanted)}"
            f"  or set {DOWNLOAD_VARIABLE}=1, or give the path of a folder that holds them"
        )
    return Located(found, found.name, weights.id)


def _downloads_allowed():
    return os.environ.get(DOWNLOAD_VARIABLE) == "1" and os.environ.get("HF_HUB_OFFLINE", "0") in ("", "0")


def _cached(weights, revision):
    hub, errors = require("huggingface_hub", "hf"), require("huggingface_hub.errors", "hf")
    try:
        folder = Path(hub.snapshot_download(weights.id, revision=revision, local_files_only=True, allow_patterns=list(weights.patterns)))
    except (errors.LocalEntryNotFoundError, errors.HFValidationError):
        return None
    # an interrupted download leaves a folder without all of its files
    complete = all(any(folder.glob(p)) for p in weights.patterns if "/" in p) and any(
        p.suffix in WEIGHT_SUFFIXES and p.exists() for p in folder.rglob("*")
    )
    return folder if complete else None


def download(weights, revision=None):
    """Downloads :class:`Weights` into the hub's cache, says so on standard error, and returns the folder."""
    hub, errors = require("huggingface_hub", "hf"), require("huggingface_hub.errors", "hf")
    revision = revision or weights.revision or "main"
    size = f", about {weights.megabytes:.0f} MB" if weights.parameters else ""
    print(f"downloading {weights.id} (revision {revision}{size}; licence: {weights.licence})", file=sys.stderr)
    try:
        return Path(hub.snapshot_download(weights.id, revision=revision, allow_patterns=list(weights.patterns)))
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, errors.HFValidationError, OSError) as error:
        raise MissingWeightsError(
            f"cannot download {weights.id} (revision {revision}): {first_line(error)}; "
            f"on a machine with access run:  {download_command(weights, revision)}"
        ) from error


def download_command(weights, revision=None):
    """The command line that puts the weights where they are looked for."""
    patterns = " ".join(f"--include '{pattern}'" for pattern in weights.patterns)
    return f"hf download {weights.id} --revision {revision or weights.revision or 'main'} {patterns}"
