"""Methods of an evaluation: a matcher for a category, and a description of everything its results depend on."""

import dataclasses
import hashlib
from functools import lru_cache
from pathlib import Path

from semalign3d_core.category.storage import find_model, load_model, model_hash
from semalign3d_core.config import preset_folder, to_dict
from semalign3d_core.errors import InputError, choice
from semalign3d_core.matchers import MATCHERS

NEEDS_MODEL = ("semalign3d",)
HAS_PRESETS = ("semalign3d",)
NOT_NUMERICAL = ("cli", "evaluation", "datasets", "metrics", "training", "assets")


def make_matcher(config, category, device):
    """(matcher, description) of ``config.method`` for a category; the description is JSON and part of the cache's keys."""
    factory = choice("method", config.method, MATCHERS)
    description = {"method": config.method, "preset": _preset_text(config.preset), "seed": config.seed, "code": code_hash()}
    if config.preset and config.method not in HAS_PRESETS:
        raise InputError(f"method {config.method} has no presets, found --preset {config.preset}; these have: {', '.join(HAS_PRESETS)}")
    options = {"preset": config.preset} if config.preset else {}
    if config.method in NEEDS_MODEL:
        model = model_of(config, category)
        description["model"] = model_hash(model)
        options["model"] = model.to(device)
    return factory(**options), description


def model_of(config, category):
    """The :class:`CategoryModel` of a category: from the configured folder, and from there only, or a shipped one."""
    name = category if config.models is None else str(Path(config.models).absolute() / f"{category}.safetensors")
    return load_model(find_model(name))


def check_method(config, dataset, categories):
    """(settings of the method, {category: content hash of its model}); raises before any work for what cannot be run.

    That is an unknown method or preset, a missing model, or mirror images where it is not known how keypoints change places.
    """
    if config.predictions is not None or not categories:
        return {}, {}
    hashes = {}
    if config.method in NEEDS_MODEL:
        hashes = {category: model_hash(model_of(config, category)) for category in categories}
    matcher, _ = make_matcher(config, categories[0], "cpu")
    if uses_mirror(matcher) and not dataset.has_mirror_table:
        raise InputError(
            f"method {config.method} needs to know which keypoints change places in the mirror image, and {config.dataset} is published "
            "without that; choose another method"
        )
    if not hasattr(matcher, "settings"):
        return to_dict(matcher) if dataclasses.is_dataclass(matcher) else {}, hashes
    return matcher.settings, hashes


def uses_mirror(matcher):
    """Whether a matcher is also given the mirror image of the source; see :mod:`semalign3d_core.matchers`."""
    return getattr(matcher, "uses_mirror", False)


@lru_cache(maxsize=1)
def code_hash():
    """Hash of the sources and presets that matching depends on: results of edited code are not taken from the cache."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        if path.relative_to(package).parts[0] not in NOT_NUMERICAL:
            digest.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    for path in sorted(preset_folder().glob("*.yaml")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _preset_text(preset):
    """The name of a shipped preset (whose content is part of the code's hash), the content of a preset of the user's own."""
    return Path(preset).read_text() if preset and Path(preset).is_file() else preset
