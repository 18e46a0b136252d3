"""Segment Anything (1 and 2) by the transformers library, prompted by a box, by points or by a category model."""

from typing import Any

import numpy as np
import torch
from PIL import Image

from semalign3d_core.perception.backbones.precision import choose_device, choose_dtype, finite, place
from semalign3d_core.perception.backbones.transformers_vit import IMAGENET_MEAN, IMAGENET_STD
from semalign3d_core.perception.evidence import FeatureMap, ImageInput
from semalign3d_core.perception.masks import Box, MaskSource, Points
from semalign3d_core.perception.masks.similarity import SimilarityMasks
from semalign3d_core.perception.providers import require
from semalign3d_core.perception.weights.pretrained import load_pretrained
from semalign3d_core.perception.weights.store import known_weights, locate
from semalign3d_core.runtime.errors import InputError


class SamMasks(MaskSource):
    """A SAM or SAM 2 model behind the mask protocol.

    model: transformers ``SamModel`` or ``Sam2Model``;  label: identifies its weights;
    prompter: :class:`~semalign3d_core.perception.masks.similarity.SimilarityMasks` that finds the object where no box and no points are
    given, or None;  dtype: number format of the image encoder, which is nearly all of the work. Prompts and mask decoder stay in
    single precision: in half precision a pixel beyond 1024 is no longer a number of its own.
    """

    reads_features = True

    def __init__(
        self,
        model: Any,
        label: str,
        prompter: SimilarityMasks | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        self.device, self.dtype, self.prompter = torch.device(device), dtype, prompter
        self.compares_with = None if prompter is None else prompter.compares_with
        self.model = place(model, self.device, torch.float32)
        for part in _encoder(model):
            part.to(dtype)
        side = model.config.prompt_encoder_config.image_size
        self.side = side if isinstance(side, int) else side[0]
        self.pads = type(model).__name__ == "SamModel"  # SAM 2 stretches the image to a square
        self.name = f"{'sam' if self.pads else 'sam2'}@{label}" + ("" if prompter is None else f"+{prompter.name}")

    def segment(self, image: ImageInput, box: Box | None = None, points: Points | None = None) -> torch.Tensor | None:
        """(h, w) bool mask of the object at ``box`` (x1, y1, x2, y2) and / or ``points`` (N, 2); None if nothing is found."""
        if box is None and points is None:
            if self.prompter is None:
                raise InputError(f"{image.name}: {self.name} needs a box, points or a category model to know which object is meant")
            box, points = self.prompter.prompts(self.prompter.features(image), image)
        return self._segment(image, box, points)

    def segment_features(
        self, features: FeatureMap, image: ImageInput, box: Box | None = None, points: Points | None = None
    ) -> torch.Tensor | None:
        """As :meth:`segment`, for an image whose :class:`FeatureMap` is there already."""
        if box is None and points is None and self.prompter is not None:
            box, points = self.prompter.prompts(features, image)
            if box is None:
                return None
        return self.segment(image, box, points)

    @torch.no_grad()
    def _segment(self, image: ImageInput, box: Box | None, points: Points | None) -> torch.Tensor | None:
        if box is None and points is None:
            return None
        pixels, size = self.prepare(image.rgb)
        scale = torch.tensor([size[1] / image.width, size[0] / image.height])
        prompts = {}
        if points is not None:
            found = torch.as_tensor(np.asarray(points), dtype=torch.float32).reshape(1, 1, -1, 2)
            prompts["input_points"] = (found * scale).to(self.device)
            prompts["input_labels"] = torch.ones(found.shape[:3], dtype=torch.int, device=self.device)
        if box is not None:
            corners = torch.as_tensor(np.asarray(box), dtype=torch.float32).reshape(1, 1, 2, 2)
            prompts["input_boxes"] = (corners * scale).reshape(1, 1, 4).to(self.device)
        embedding = self.model.get_image_embeddings(pixels[None].to(self.device, self.dtype))
        embedding = [e.float() for e in embedding] if isinstance(embedding, list) else embedding.float()
        output = self.model(image_embeddings=embedding, multimask_output=False, **prompts)
        logits = finite(output.pred_masks.cpu()[0, 0, :1], self, image)
        mask = self._to_image(logits, size, (image.height, image.width)) > 0
        return mask if mask.any() else None

    def prepare(self, rgb: np.ndarray) -> tuple[torch.Tensor, tuple[int, int]]:
        """(h, w, 3) uint8 to (input (3, side, side), (height, width) of the image inside it); SAM pads right and below."""
        height, width = rgb.shape[:2]
        size = (self.side, self.side)
        if self.pads:
            scale = self.side / max(height, width)
            size = max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
        small = np.array(Image.fromarray(rgb).resize((size[1], size[0]), Image.Resampling.BILINEAR))
        mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
        normalised = (torch.from_numpy(small).permute(2, 0, 1).float() / 255 - mean) / std
        return torch.nn.functional.pad(normalised, (0, self.side - size[1], 0, self.side - size[0])), size

    def _to_image(self, logits: torch.Tensor, size: tuple[int, int], image_size: tuple[int, int]) -> torch.Tensor:
        """(1, m, m) logits of the square input to (h, w) of the image."""
        logits = logits[None]
        if self.pads:
            logits = _resize(logits, (self.side, self.side))[..., : size[0], : size[1]]
        return _resize(logits, image_size)[0, 0]


def _encoder(model: Any) -> list[torch.nn.Module]:
    """The parts of ``model`` that see the image before any prompt."""
    decoder = model.mask_decoder
    return [model.vision_encoder, *(getattr(decoder, name) for name in ("conv_s0", "conv_s1") if hasattr(decoder, name))]


def _resize(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return torch.nn.functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def load_sam(
    family: str, argument: str, revision: str | None = None, device: str | None = None, dtype: str | None = None, prompter: Any = None
) -> SamMasks:
    """The :class:`SamMasks` of a short name, hub id or local path; family ``sam`` or ``sam2``."""
    located = locate(known_weights(family, argument, {"sam": "base", "sam2": "tiny"}[family]), revision)
    transformers = require("transformers", "hf")
    kind = transformers.SamModel if family == "sam" else transformers.Sam2Model
    model = load_pretrained(kind, located.folder, f"{family} model", ignore_mismatched_sizes=True)
    where = choose_device(device)
    return SamMasks(model, located.digest()[:8], prompter, where, choose_dtype(dtype, where, family))
