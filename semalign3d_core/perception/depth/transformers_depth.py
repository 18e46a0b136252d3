"""Monocular depth by any depth model of the transformers library; Depth Anything V2 first of all.

Resizing, normalisation and the way back to the image's size are those of the library's own image processor of the model.
"""

import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semalign3d_core.perception.backbones.precision import choose_device, choose_dtype, finite, place
from semalign3d_core.perception.backbones.transformers_vit import IMAGENET_MEAN, IMAGENET_STD
from semalign3d_core.perception.depth import DepthSource
from semalign3d_core.perception.evidence import DEPTH_KINDS, DepthMap, ImageInput
from semalign3d_core.perception.providers import first_line, require
from semalign3d_core.perception.weights.pretrained import load_pretrained, quiet
from semalign3d_core.perception.weights.store import known_weights, locate
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingDependencyError
from semalign3d_core.runtime.files import read_json

# what the numbers of a model family mean; Depth Anything says it in its configuration
KINDS = {"dpt": "disparity", "zoedepth": "metric", "glpn": "metric", "depth_pro": "metric"}
NARROWEST, SHORTEST = 20, 32  # longer : shorter side, and pixels, beyond which image processors leave nothing of an image


class TransformersDepth(DepthSource):
    """A depth model behind the depth protocol.

    model: transformers model with ``predicted_depth``;  label: identifies its weights;  kind: one of ``DEPTH_KINDS``,
    or None for what the model's configuration says;  processor: its image processor, None for that of Depth Anything.
    """

    def __init__(
        self,
        model: Any,
        label: str,
        kind: str | None = None,
        processor: Any = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        self.kind = kind or depth_kind(model.config)
        if self.kind not in DEPTH_KINDS:
            raise InputError(f"unknown depth kind {self.kind!r}: choose one of {', '.join(DEPTH_KINDS)}")
        self.device, self.dtype = torch.device(device), dtype
        self.model = place(model, self.device, dtype)
        self.name = f"{model.config.model_type}-{self.kind}@{label}"
        self.processor = processor or depth_anything_processor()

    @torch.no_grad()
    def estimate(self, image: ImageInput) -> DepthMap:
        """The :class:`DepthMap` (h, w) of an :class:`ImageInput`."""
        rgb = _not_too_narrow(image.rgb)
        inputs = self.processor(images=rgb, return_tensors="pt", input_data_format="channels_last")
        output = self.model(pixel_values=inputs["pixel_values"].to(self.device, self.dtype))
        output.predicted_depth = output.predicted_depth.float().cpu()
        size = (image.height, image.width)
        values = self._post_process(output, rgb.shape[:2], size).reshape(size)
        # bicubic interpolation overshoots; no pixel is nearer or farther than all that was predicted
        values = values.clamp(output.predicted_depth.min(), output.predicted_depth.max())
        return DepthMap(finite(values, self, image).clone(), self.kind)

    def _post_process(self, output: Any, source_size: tuple[int, int], size: tuple[int, int]) -> torch.Tensor:
        method = self.processor.post_process_depth_estimation
        padded = {"source_sizes": [source_size]} if "source_sizes" in inspect.signature(method).parameters else {}
        try:
            return method(output, target_sizes=[size], **padded)[0]["predicted_depth"]
        except (ImportError, NameError) as error:  # that of ZoeDepth uses torchvision without importing it first
            raise MissingDependencyError(f"{self.name}: its processor needs torchvision ({error}): pip install torchvision") from error


def _not_too_narrow(rgb: np.ndarray) -> np.ndarray:
    """``rgb`` (h, w, 3) with its pixels repeated along a side that is too short for image processors."""
    shortest = max(SHORTEST, max(rgb.shape[:2]) / NARROWEST)
    for axis in (0, 1):
        rgb = np.repeat(rgb, max(1, math.ceil(shortest / rgb.shape[axis])), axis)
    return rgb


def depth_anything_processor(side: int = 518) -> Any:
    """The image processor of Depth Anything: the shape kept, one side of ``side`` pixels, multiples of 14, normalised as ImageNet."""
    transformers = require("transformers", "hf")
    # the class without torchvision, so that all machines see the same pixels; older versions have only that one
    kind = getattr(transformers, "DPTImageProcessorPil", None) or transformers.DPTImageProcessor
    options = {"keep_aspect_ratio": True, "ensure_multiple_of": 14, "image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD)}
    return kind(size={"height": side, "width": side}, **options)


def depth_kind(config: Any) -> str:
    """What a model's numbers mean, by its configuration; raises :class:`InputError` for families that do not say."""
    stated = getattr(config, "depth_estimation_type", None)
    if stated is not None:
        return "metric" if stated == "metric" else "disparity"
    # of DPT with DINOv2 there are checkpoints of either kind
    mixed = config.model_type == "dpt" and getattr(getattr(config, "backbone_config", None), "model_type", "") == "dinov2"
    if config.model_type in KINDS and not mixed:
        return KINDS[config.model_type]
    raise InputError(f"depth models of type {config.model_type!r} do not say what they measure: add ,kind={'|'.join(DEPTH_KINDS)}")


def load_depth(
    family: str, argument: str, revision: str | None = None, device: str | None = None, dtype: str | None = None, kind: str | None = None
) -> TransformersDepth:
    """The :class:`TransformersDepth` of a short name, hub id or local path."""
    located = locate(known_weights(family, argument, "small"), revision)
    auto = require("transformers", "hf").AutoModelForDepthEstimation
    model = load_pretrained(auto, located.folder, "depth model", ignore_mismatched_sizes=True)
    where = choose_device(device)
    number_format = choose_dtype(dtype, where, model.config.model_type)
    return TransformersDepth(model, located.digest()[:8], kind, load_processor(located.folder), where, number_format)


def load_processor(folder: str | Path) -> Any:
    """The image processor of a model folder, None where it has none; where the library has one without torchvision, that one."""
    path = Path(folder) / "preprocessor_config.json"
    if not path.is_file():
        return None
    transformers, stored = require("transformers", "hf"), read_json(path)
    name = stored.get("image_processor_type") or stored.get("feature_extractor_type", "").replace("FeatureExtractor", "ImageProcessor")
    name = name.removesuffix("Fast").removesuffix("Pil")
    kinds = (getattr(transformers, kind, None) for kind in (f"{name}Pil", name, "AutoImageProcessor") if name)
    kind = next((kind for kind in kinds if kind is not None), transformers.AutoImageProcessor)
    try:
        with quiet():
            return kind.from_pretrained(folder, local_files_only=True)
    except ImportError as error:
        raise MissingDependencyError(f"the image processor of {folder} needs torchvision: pip install torchvision") from error
    except (OSError, ValueError, TypeError) as error:
        raise FileFormatError(f"{folder}/preprocessor_config.json describes no image processor ({first_line(error)})") from error
