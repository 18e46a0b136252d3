"""Methods of an evaluation: a matcher for a category, and a description of everything its results depend on."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from semalign3d_core.calibration.recipe import BuildOptions
from semalign3d_core.category.model import CategoryModel
from semalign3d_core.category.storage import find_model, load_model, model_hash
from semalign3d_core.datasets.records import Dataset
from semalign3d_core.evaluation.run.config import EvaluationConfig
from semalign3d_core.evaluation.run.evaluation import MethodFacts
from semalign3d_core.matchers import MATCHERS
from semalign3d_core.matchers.matcher import Matcher
from semalign3d_core.matchers.pose_prediction import read_templates, shipped_templates
from semalign3d_core.runtime.code_hash import code_of
from semalign3d_core.runtime.errors import InputError, choice
from semalign3d_core.runtime.files import sha256_of_arrays

NEEDS_MODEL = ("semalign3d", "semalign3d_keypoints", "nearest_neighbour_keypoints")
NEEDS_TEMPLATES = ("template_pose",)
NEEDS_NETWORK = ("sfnet",)
ALIGNS = ("semalign3d", "semalign3d_keypoints")
HAS_PRESETS = {"preset": (*ALIGNS, "spherical_maps"), "transfer": ALIGNS}
READS = {"width": ("window_soft_argmax", "kernel_soft_argmax", "adaptive_pose", "template_pose"), "quarters": ("adaptive_pose",)}


def build_options(config: EvaluationConfig, output: Path, max_images: int = 0) -> BuildOptions:
    """How the models of an evaluation are built: its data, sources and cache; where it has no source, as ``semalign3d build`` chooses."""
    depth, masks = ("auto" if spec == "none" else spec for spec in (config.depth, config.masks))
    return BuildOptions(
        dataset=config.dataset, output=output, backbone=config.backbone, depth=depth, masks=masks, device=config.device,
        cache=config.cache_folder, max_images=max_images,
    )  # fmt: skip


def make_matcher(config: EvaluationConfig, category: str, device: Any, backbone: Any = None) -> tuple[Matcher, dict[str, Any]]:
    """(matcher, description) of ``config.method`` for a category; the description is JSON and part of the cache's keys.

    backbone: extracts the features of template images, for methods that have some
    """
    factory = choice("method", config.method, MATCHERS)
    description = {"method": config.method, "seed": config.seed}
    for name in ("preset", "transfer"):
        if getattr(config, name) and config.method not in HAS_PRESETS[name]:
            raise InputError(f"method {config.method} has no presets, found --{name}; these have: {', '.join(HAS_PRESETS[name])}")
    options = {name: value for name in ("preset", "transfer") if (value := getattr(config, name))}
    asked = _readout(config)
    options |= asked
    description |= asked
    if config.method in NEEDS_MODEL:
        model = model_of(config, category)
        description["model"] = model_hash(model)
        options["model"] = model.to(device)
    if config.method in NEEDS_TEMPLATES:
        options |= {"templates": templates_of(config, category), "backbone": backbone}
        description |= {"templates": templates_hash(options["templates"]), "features": config.backbone}
    if config.method in NEEDS_NETWORK:
        options |= {"network": config.network, "device": device}
    matcher = factory(**options)
    return matcher, description | {"settings": matcher.settings, "state": _plain_state(matcher), "code": code_of(matcher)}


def _plain_state(matcher):
    """The numbers and texts that a matcher keeps beside its settings, as JSON: those of a plug-in decide its results, too."""
    return {name: value for name, value in sorted(getattr(matcher, "__dict__", {}).items()) if _is_plain(value)}


def _is_plain(value):
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _readout(config):
    """{option of the matcher: value} of what is asked for of the way positions are read; raises for methods without such an option."""
    asked = {}
    for option, name, value in (("--window", "width", config.window), ("--rotations", "quarters", (1, 2, 3) if config.rotations else None)):
        if value is not None:
            asked[name] = value
            if config.method not in READS[name]:
                raise InputError(f"method {config.method} has no {option}; these have: {', '.join(READS[name])}")
    return asked


def model_of(config: EvaluationConfig, category: str) -> CategoryModel:
    """The :class:`CategoryModel` of a category: from the configured folder, and from there only, or a shipped one."""
    name = category if config.models is None else str(Path(config.models).absolute() / f"{category}.safetensors")
    return load_model(find_model(name))


def with_backbone(config: EvaluationConfig) -> EvaluationConfig:
    """The configuration with the backbone ``auto`` replaced by that of its category models, where it has a folder of them."""
    if config.backbone != "auto" or config.predictions is not None:
        return config
    files = [] if config.models is None else sorted(Path(config.models).glob("[!.]*.safetensors"))
    files = [file for file in files if not config.categories or file.stem in config.categories]
    return replace(config, backbone=load_model(files[0]).backbone_spec() if files else "compact")


def templates_of(config: EvaluationConfig, category: str) -> dict[str, Any]:
    """The template pictures of a category, the shipped ones unless a folder is given: {set: {view: :class:`ImageInput`}}."""
    return read_templates(shipped_templates(category) if config.templates is None else config.templates / category)


def templates_hash(templates: dict[str, Any]) -> str:
    """Hash of all template pictures."""
    return sha256_of_arrays({f"{name}/{view}": image.rgb for name, views in templates.items() for view, image in views.items()})


def check_method(config: EvaluationConfig, dataset: Dataset, categories: Sequence[str]) -> MethodFacts:
    """The :class:`MethodFacts`; raises before any work for what cannot be run.

    That is an unknown method or preset, a missing model, or mirror images where it is not known how keypoints change places.
    """
    if dataset.annotation == "masks" and (config.kap != "none" or config.studies):
        raise InputError(f"{config.dataset} is published with masks: there are no keypoints for --kap, --ablation and the other studies")
    if config.predictions is not None or not categories:
        return MethodFacts()
    hashes = {}
    if config.method in NEEDS_MODEL:
        hashes = {category: model_hash(model_of(config, category)) for category in categories}
    if config.method in NEEDS_TEMPLATES:  # made by the processes that have the backbone
        matcher = None
        settings = {"template_sets": {category: list(templates_of(config, category)) for category in categories}}
    else:
        matcher, _ = make_matcher(config, categories[0], "cpu")
        settings = matcher.settings
    if (matcher is None or matcher.uses_mirror) and not dataset.has_mirror_table:
        raise InputError(
            f"method {config.method} needs to know which keypoints change places in the mirror image, and {config.dataset} is published "
            "without that; choose another method"
        )
    if matcher is None:
        return MethodFacts(settings, hashes)
    return MethodFacts(settings, hashes, "method" if matcher.rates_cells else "features", matcher.told_keypoints)
