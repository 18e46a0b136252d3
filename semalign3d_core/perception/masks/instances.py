"""Masks of an instance segmentation model of the transformers library (Mask2Former, MaskFormer) that knows the object's category by name.

It stands in for the Mask R-CNN of the published training of SphericalMaps: of all instances of the category the one it is surest of.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from semalign3d_core.perception.backbones.precision import choose_device, finite, place
from semalign3d_core.perception.backbones.transformers_vit import read_normalisation
from semalign3d_core.perception.evidence import ImageInput
from semalign3d_core.perception.masks import Box, MaskSource, Points
from semalign3d_core.perception.providers import require
from semalign3d_core.perception.weights.pretrained import load_pretrained
from semalign3d_core.perception.weights.store import known_weights, locate
from semalign3d_core.runtime.errors import InputError

# what SPair-71k and COCO call the same thing
COCO_NAMES = {"aeroplane": "airplane", "motorbike": "motorcycle", "pottedplant": "potted plant", "tvmonitor": "tv", "mug": "cup"}
SURE = 0.9  # published
SIDE = 384  # of the square the model sees, a multiple of 32


class InstanceMasks(MaskSource):
    """A transformers model for universal segmentation behind the mask protocol.

    model: gives ``class_queries_logits`` and ``masks_queries_logits``;  label: identifies its weights
    category: of the object, "" where the record of every image says it;  fallback: mask source that is asked where nothing is found
    """

    def __init__(
        self,
        model: Any,
        label: str,
        category: str = "",
        fallback: MaskSource | None = None,
        normalisation: tuple[Sequence[float], Sequence[float]] = ((0.5,) * 3, (0.5,) * 3),
        device: torch.device | str = "cpu",
    ):
        self.model, self.device = place(model, torch.device(device), torch.float32), torch.device(device)
        self.category, self.fallback = category, fallback
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in normalisation)
        self.labels = {name.replace("_", " ").lower(): int(index) for index, name in model.config.id2label.items()}
        self.name = f"instances@{label}" + ("" if fallback is None else f"+{fallback.name}")

    @torch.no_grad()
    def segment(self, image: ImageInput, box: Box | None = None, points: Points | None = None) -> torch.Tensor | None:
        """(h, w) bool mask of the instance of the category that the model is surest of; None if it is sure of none."""
        label = self._label(image)
        small = np.array(Image.fromarray(image.rgb).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        pixels = (torch.from_numpy(small).permute(2, 0, 1).float() / 255 - self.mean) / self.std
        output = self.model(pixel_values=pixels[None].to(self.device))
        scores = finite(output.class_queries_logits.cpu()[0], self, image).softmax(-1)
        sure = torch.where(scores[:, :-1].argmax(-1) == label, scores[:, label], 0.0)
        best = int(sure.argmax())
        if sure[best] < SURE:
            return None if self.fallback is None else self.fallback.segment(image, box, points)
        logits = output.masks_queries_logits[:, best : best + 1].float().cpu()
        mask = torch.nn.functional.interpolate(logits, size=(image.height, image.width), mode="bilinear", align_corners=False)[0, 0] > 0
        return mask if mask.any() else None

    def _label(self, image: ImageInput) -> int:
        category = self.category or (image.record.category if image.record else "")
        name = COCO_NAMES.get(category, category)
        if name not in self.labels:
            known = ", ".join(sorted(self.labels)[:10])
            raise InputError(f"{image.name}: {self.name} knows no {category or 'category of this image'!r}; it knows {known} ...")
        return self.labels[name]


def load_instances(
    argument: str, revision: str | None = None, device: str | None = None, category: str = "", fallback: MaskSource | None = None
) -> InstanceMasks:
    """The :class:`InstanceMasks` of a hub id or local path, for example ``facebook/mask2former-swin-tiny-coco-instance``."""
    if not argument:
        raise InputError("instances needs a model: instances:facebook/mask2former-swin-tiny-coco-instance, or the folder of one")
    located = locate(known_weights("instances", argument, ""), revision)
    kind = require("transformers", "hf").AutoModelForUniversalSegmentation
    model = load_pretrained(kind, located.folder, "model for universal segmentation")
    return InstanceMasks(model, located.digest()[:8], category, fallback, read_normalisation(located.folder), choose_device(device))
