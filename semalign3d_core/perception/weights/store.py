"""Pretrained weights: where they lie, what is missing and how to get it.

Nothing is downloaded unless that is asked for: by ``semalign3d doctor --download NAME``, or by setting the environment
variable ``SEMALIGN3D_DOWNLOAD=1``. ``HF_HUB_OFFLINE=1`` forbids it whatever else is set. Weights with a short name are pinned to
commits (:mod:`.known_weights`); any other hub id is pinned to the commit it had when it was first used here.
"""

import hashlib
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from semalign3d_core.perception.providers import first_line, require
from semalign3d_core.perception.weights.known import FILES, KNOWN, Weights
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError, MissingWeightsError
from semalign3d_core.runtime.files import files_below, read_json, sha256_of_file, visible, write_json

DOWNLOAD_VARIABLE = "SEMALIGN3D_DOWNLOAD"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")  # in the order in which loaders prefer them
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Located:
    """Weights on disk: the folder, the commit it holds (None for a local path), where it was asked for, the files that count."""

    folder: Path
    revision: str | None
    source: str
    patterns: tuple = FILES

    def digest(self) -> str:
        """Hexadecimal SHA-256 of the weight files; the hub's cache already names files by theirs.

        Only files that are loaded count, so that other formats of the same weights beside them change nothing.
        """
        digests = [_digest(path) for path in weight_files(self.folder, self.patterns)]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def weight_files(folder: Path, patterns: Sequence[str] = FILES) -> list[Path]:
    """The weight files of ``folder`` that a loader reads: those of ``patterns``; else, of each folder, those of the preferred format."""
    wanted = sorted(p for pattern in patterns for p in visible(folder.glob(pattern)) if p.suffix in WEIGHT_SUFFIXES and p.is_file())
    if wanted:
        return wanted
    found = [p for p in files_below(folder) if p.suffix in WEIGHT_SUFFIXES]
    best = {p.parent: min((q.suffix for q in found if q.parent == p.parent), key=WEIGHT_SUFFIXES.index) for p in found}
    return [p for p in found if p.suffix == best[p.parent]]


def _digest(path: Path) -> str:
    blob = path.resolve().name
    return blob if re.fullmatch(r"[0-9a-f]{64}", blob) else sha256_of_file(path)


def known_weights(family: str, argument: str, default: str) -> Weights:
    """The :class:`Weights` that ``family:argument`` means: a short name (empty: ``default``) or any hub id or local path."""
    standard = KNOWN.get(f"{family}:{default}")
    patterns = FILES if standard is None else standard.patterns
    name = f"{family}:{argument or default}"
    return KNOWN.get(name) or named_weights(argument) or Weights(argument, None, 0, "see its page", patterns)


def named_weights(hub_id: str) -> Weights | None:
    """The pinned :class:`Weights` of a hub id, or None."""
    return next((weights for weights in KNOWN.values() if weights.id == hub_id), None)


def locate(weights: Weights, revision: str | None = None, may_download: bool = True) -> Located:
    """Finds :class:`Weights` on disk: a local folder, or the hub's cache; :class:`Located`.

    revision: commit, tag or branch instead of the pinned one;  may_download: False ignores the environment variable.
    Weights that are not pinned get the commit that is found first, and only that one afterwards (:func:`recorded_revisions`).
    Raises :class:`MissingWeightsError` with the command to run.
    """
    folder = Path(weights.id)
    if folder.is_dir():
        return Located(folder, None, weights.id, weights.patterns)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", weights.id) or weights.id.startswith("."):
        raise MissingWeightsError(f"the folder {weights.id} does not exist; give one that holds config.json and the weights, or a hub id")
    recorded = recorded_revisions().get(weights.id)
    wanted = revision or weights.revision or recorded or "main"
    found = _cached(weights, wanted)
    if found is None and may_download and _downloads_allowed():
        found = download(weights, wanted)
    if found is None:
        why = f", the one first used here, see {revisions_file()}" if wanted == recorded else ""
        raise MissingWeightsError(
            f"the weights {weights.id} (revision {wanted}{why}) are not on this machine; get them with:  "
            f"{download_command(weights, wanted)}  or set {DOWNLOAD_VARIABLE}=1, or give the path of a folder that holds them"
        )
    if may_download and wanted == "main" and not revision:
        _record(weights.id, found.name)
    return Located(found, found.name, weights.id, weights.patterns)


def revisions_file() -> Path:
    """Where the commits of weights that are not pinned by name are recorded; a user without a home has no such file."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return Path(home) / "semalign3d" / "revisions.json"


def recorded_revisions() -> dict[str, str]:
    """{hub id: commit} of the weights that were used here without being pinned by name."""
    try:
        return read_json(revisions_file(), dict[str, str])
    except (MissingFileError, FileFormatError):
        return {}


def _record(hub_id: str, commit: str) -> None:
    if not COMMIT.fullmatch(commit) or not revisions_file().is_absolute():
        return
    try:
        write_json(revisions_file(), recorded_revisions() | {hub_id: commit}, ours=True)
    except InputError as error:  # a home that cannot be written must not keep anybody from using the weights
        print(f"{hub_id} is used at commit {commit}, but that could not be recorded: {error}; add ,revision={commit}", file=sys.stderr)
        return
    print(f"{hub_id} is used at commit {commit} from now on (recorded in {revisions_file()})", file=sys.stderr)


def _downloads_allowed() -> bool:
    return os.environ.get(DOWNLOAD_VARIABLE) == "1" and os.environ.get("HF_HUB_OFFLINE", "0") in ("", "0")


def _cached(weights: Weights, revision: str | None) -> Path | None:
    hub, errors = require("huggingface_hub", "hf"), require("huggingface_hub.errors", "hf")
    try:
        folder = Path(hub.snapshot_download(weights.id, revision=revision, local_files_only=True, allow_patterns=list(weights.patterns)))
    except (errors.LocalEntryNotFoundError, errors.HFValidationError, RuntimeError):  # the last: there is no home folder
        return None
    # an interrupted download leaves a folder without all of its files
    complete = all(any(folder.glob(p)) for p in weights.patterns if "/" in p) and weight_files(folder, weights.patterns)
    return folder if complete else None


def download(weights: Weights, revision: str | None = None) -> Path:
    """Downloads :class:`Weights` into the hub's cache, says so on standard error, and returns the folder."""
    hub, errors = require("huggingface_hub", "hf"), require("huggingface_hub.errors", "hf")
    revision = revision or weights.revision or recorded_revisions().get(weights.id) or "main"
    size = f", about {weights.megabytes:.0f} MB" if weights.parameters else ""
    print(f"downloading {weights.id} (revision {revision}{size}; licence: {weights.licence})", file=sys.stderr)
    try:
        folder = Path(hub.snapshot_download(weights.id, revision=revision, allow_patterns=list(weights.patterns)))
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, errors.HFValidationError, OSError) as error:
        gated = " (gated: accept its licence on its page, then run: hf auth login)" if "gated" in weights.licence else ""
        raise MissingWeightsError(
            f"cannot download {weights.id} (revision {revision}): {first_line(error)}{gated}; "
            f"on a machine with access run:  {download_command(weights, revision)}"
        ) from error
    if not weight_files(folder, weights.patterns):
        kinds = ", ".join(p for p in weights.patterns if p.endswith(WEIGHT_SUFFIXES))
        raise MissingWeightsError(f"{weights.id} (revision {revision}) holds no {kinds}; convert its weights and give the folder's path")
    return folder


def download_command(weights: Weights, revision: str | None = None) -> str:
    """The command line that puts the weights where they are looked for."""
    patterns = " ".join(f"--include '{pattern}'" for pattern in weights.patterns)
    return f"hf download {weights.id} --revision {revision or weights.revision or 'main'} {patterns}"
