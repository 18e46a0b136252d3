"""Hashes of the code that results depend on: what was computed by other code is not taken from the cache."""

import hashlib
from functools import lru_cache
from pathlib import Path

from semalign3d_core.runtime.config import preset_folder

PACKAGE = Path(__file__).parents[1]
NOT_NUMERICAL = ("cli", "evaluation", "datasets", "metrics", "learned", "assets")


@lru_cache(maxsize=1)
def code_hash():
    """Hash of the sources and presets that matching depends on: results of edited code are not taken from the cache."""
    sources = [path for path in sorted(PACKAGE.rglob("*.py")) if path.relative_to(PACKAGE).parts[0] not in NOT_NUMERICAL]
    return _files_hash([*sources, *sorted(preset_folder().glob("*.yaml"))])


@lru_cache(maxsize=8)
def provider_hash(kind):
    """As :func:`code_hash`, of the sources that providers of a kind (``backbones``, ``depth``, ``masks``) depend on."""
    shared = (PACKAGE / "geometry" / "image_grid.py", PACKAGE / "perception" / "images.py")
    learned = [path for name in ("backbone", "network", "inference") for path in sorted((PACKAGE / "learned").glob(f"*/{name}.py"))]
    return _files_hash([*sorted((PACKAGE / "perception" / kind).glob("*.py")), *learned, *shared])


def _files_hash(paths):
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def learned_hash(system: str) -> str:
    """Hash of the sources of a learned system (``sfnet``), which :func:`code_hash` leaves out."""
    return _files_hash(sorted((PACKAGE / "learned" / system).glob("*.py")))
