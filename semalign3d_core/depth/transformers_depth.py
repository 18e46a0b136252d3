"""Monocular depth by any depth model of the transformers library; Depth Anything V2 first of all."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from semalign3d_core.backbones.precision import choose_device, choose_dtype, place
from semalign3d_core.backbones.transformers_vit import IMAGENET_MEAN, IMAGENET_STD
from semalign3d_core.errors import FileFormatError, InputError
from semalign3d_core.evidence import DEPTH_KINDS, DepthMap
from semalign3d_core.providers import first_line, require
from semalign3d_core.weights import known_weights, locate

# what the numbers of a model family mean; Depth Anything says it in its configuration
KINDS = {"dpt": "disparity", "zoedepth": "metric", "glpn": "metric", "depth_pro": "metric"}


class TransformersDepth:
    """A depth model behind the depth protocol.

    model: transformers model with ``predicted_depth``;  label: identifies its weights;  kind: one of ``DEPTH_KINDS``,
    or None for what the model's configuration says;  preprocessing: content of its ``preprocessor_config.json``.
    """

    def __init__(self, model, label, kind=None, preprocessing=None, device="cpu", dtype=torch.float32):
        self.kind = kind or depth_kind(model.config)
        if self.kind not in DEPTH_KINDS:
            raise InputError(f"unknown depth kind {self.kind!r}: choose one of {', '.join(DEPTH_KINDS)}")
        self.device, self.dtype = torch.device(device), dtype
        self.model = place(model, self.device, dtype)
        self.name = f"{model.config.model_type}-{self.kind}@{label}"
        self.preprocessing = preprocessing or {}
        stored = (self.preprocessing.get("image_mean", IMAGENET_MEAN), self.preprocessing.get("image_std", IMAGENET_STD))
        self.mean, self.std = (torch.tensor(v)[:, None, None] for v in stored)

    @torch.no_grad()
    def estimate(self, image):
        """The :class:`DepthMap` (h, w) of an :class:`ImageInput`."""
        predicted = self.model(pixel_values=self.prepare(image.rgb)[None].to(self.device, self.dtype)).predicted_depth
        predicted = predicted.float().reshape(1, 1, *predicted.shape[-2:])
        size = (image.height, image.width)
        values = torch.nn.functional.interpolate(predicted, size=size, mode="bilinear", align_corners=False)[0, 0]
        return DepthMap(values.cpu().clone(), self.kind)

    def prepare(self, rgb):
        """(h, w, 3) uint8 to the normalised input (3, H, W) of the size the model was made for."""
        width, height = self.input_size(*rgb.shape[:2])
        small = np.array(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))
        return (torch.from_numpy(small).permute(2, 0, 1).float() / 255 - self.mean) / self.std

    def input_size(self, height, width):
        """(width, height) of the input: the shorter side as configured, the shape kept, multiples of the patch size."""
        size = self.preprocessing.get("size", {"height": 518, "width": 518})
        multiple = self.preprocessing.get("ensure_multiple_of") or self.preprocessing.get("size_divisor") or 14
        wanted = size.get("height", size.get("shortest_edge", 518)), size.get("width", size.get("shortest_edge", 518))
        if not self.preprocessing.get("keep_aspect_ratio", True):
            return wanted[1], wanted[0]
        # the scale that changes the image least, as the published preprocessing of Depth Anything chooses it
        scale = min((wanted[0] / height, wanted[1] / width), key=lambda s: abs(1 - s))
        return tuple(max(multiple, round(scale * length / multiple) * multiple) for length in (width, height))


def depth_kind(config):
    """What a model's numbers mean, by its configuration; raises :class:`InputError` for families that do not say."""
    stated = getattr(config, "depth_estimation_type", None)
    if stated is not None:
        return "metric" if stated == "metric" else "disparity"
    if config.model_type in KINDS:
        return KINDS[config.model_type]
    raise InputError(f"depth models of type {config.model_type!r} do not say what they measure: add ,kind={'|'.join(DEPTH_KINDS)}")


def load_depth(family, argument, revision=None, device=None, dtype=None, kind=None):
    """The :class:`TransformersDepth` of a short name, hub id or local path."""
    located = locate(known_weights(family, argument, "small"), revision)
    try:
        model = require("transformers", "hf").AutoModelForDepthEstimation.from_pretrained(located.folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise FileFormatError(f"{located.folder} holds no complete depth model ({first_line(error)}); get it again") from error
    path = Path(located.folder) / "preprocessor_config.json"
    preprocessing = json.loads(path.read_text()) if path.is_file() else {}
    device = choose_device(device)
    return TransformersDepth(model, located.digest()[:8], kind, preprocessing, device, choose_dtype(dtype, device))
