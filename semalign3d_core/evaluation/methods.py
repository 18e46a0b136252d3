"""Methods of an evaluation: a matcher for a category, and a description of everything its results depend on."""

import dataclasses
import hashlib
from functools import lru_cache
from pathlib import Path

from semalign3d_core import backbones
from semalign3d_core.category.storage import find_model, load_model, model_hash
from semalign3d_core.config import preset_folder, to_dict
from semalign3d_core.errors import InputError, choice
from semalign3d_core.files import sha256_of_arrays
from semalign3d_core.matchers import MATCHERS
from semalign3d_core.matchers.pose_prediction import read_templates
from semalign3d_core.providers import on_device

NEEDS_MODEL = ("semalign3d",)
NEEDS_TEMPLATES = ("template_pose",)
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
    if config.method in NEEDS_TEMPLATES:
        options |= template_options(config, category, device)
        description |= {"templates": templates_hash(options["templates"]), "features": config.backbone}
    return factory(**options), description


def model_of(config, category):
    """The :class:`CategoryModel` of a category: from the configured folder, and from there only, or a shipped one."""
    name = category if config.models is None else str(Path(config.models).absolute() / f"{category}.safetensors")
    return load_model(find_model(name))


def template_options(config, category, device):
    """The template pictures of a category, and the backbone that looks at them: the one that looks at the images."""
    if config.templates is None:
        views = "back.jpg, front.jpg, left.jpg, right.jpg"
        raise InputError(f"method {config.method} needs template pictures: --templates DIR with DIR/{category}/<set>/{views}")
    backbone = backbones.create(on_device(config.backbone, backbones.BACKBONES, device), config.dataset)
    return {"templates": read_templates(config.templates / category), "backbone": backbone}


def templates_hash(templates):
    """Hash of all template pictures."""
    return sha256_of_arrays({f"{name}/{view}": image.rgb for name, views in templates.items() for view, image in views.items()})


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
