"""Patch tokens of vision transformers: DINOv2, DINOv3 and any other that the transformers library loads.

Source: GeoAware-SC (CVPR 2024), section "DINOv2 branch": output of the last block, before the final layer norm, without class
and register tokens, of the published square canvas of 60 x 60 patches.
"""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semalign3d_core.geometry.image_grid import CANVAS_CELLS, SquareGrid, resize_pad
from semalign3d_core.perception.backbones import FeatureBackbone
from semalign3d_core.perception.backbones.compiled import compiled
from semalign3d_core.perception.backbones.precision import choose_device, choose_dtype, finite, place
from semalign3d_core.perception.evidence import FeatureMap, ImageInput
from semalign3d_core.perception.providers import require
from semalign3d_core.perception.weights.pretrained import load_pretrained
from semalign3d_core.perception.weights.store import known_weights, locate
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.files import read_json

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BLOCK_LISTS = ("layer", "layers", "blocks")  # what the library calls the list of a model's transformer blocks


class TransformerBackbone(FeatureBackbone):
    """A vision transformer behind the backbone protocol.

    model: a transformers vision model;  label: identifies its weights;  cells: patches per side of the canvas;
    mean, std: normalisation of RGB in [0, 1];  device: where the model runs;  dtype: its number format;
    runtime: what computes it in single precision, see :func:`~semalign3d_core.perception.backbones.compiled.compiled`.
    """

    def __init__(
        self,
        model: Any,
        label: str,
        cells: int = CANVAS_CELLS,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        runtime: str = "pytorch",
    ):
        self.patch, self.cells, self.channels = _patch(model), cells, model.config.hidden_size
        self.name = f"{model.config.model_type}-{self.channels}@{label}" + ("" if cells == CANVAS_CELLS else f"-{cells}")
        self.device, self.dtype = torch.device(device), dtype
        fix_positions(model, cells)
        self.model = place(model, self.device, dtype)
        self.mean, self.std = (torch.tensor(v)[:, None, None] for v in (mean, std))
        example = torch.zeros(1, 3, cells * self.patch, cells * self.patch, device=self.device, dtype=dtype)
        self._run = compiled(_LastBlock(self.model), example, runtime if dtype == torch.float32 else "pytorch")

    def grid(self, image: ImageInput) -> SquareGrid:
        """The :class:`SquareGrid` of an image's features."""
        return SquareGrid(image.height, image.width, self.cells, "canvas", image.window)

    def extract(self, image: ImageInput) -> FeatureMap:
        """Features (C, cells, cells) float32, unit norm; see the backbone protocol."""
        return self.extract_batch([image])[0]

    def extract_batch(self, images: Sequence[ImageInput]) -> list[FeatureMap]:
        """Features of several images in one pass; the same as one by one."""
        values = torch.nn.functional.normalize(self.raw(images), dim=1)
        return [FeatureMap(value.clone(), self.grid(image)) for value, image in zip(values, images, strict=True)]

    @torch.no_grad()
    def raw(self, images: Sequence[ImageInput]) -> torch.Tensor:
        """Patch tokens (B, C, cells, cells) float32 on the CPU, as the last block gives them."""
        pixels = torch.stack([self.prepare(image.seen()) for image in images]).to(self.device, self.dtype)
        tokens = self._run(pixels)
        if tokens.ndim != 3 or tokens.shape[1] < self.cells**2:
            raise InputError(f"{self.name}: its last block does not give one token per patch; this kind of model is not supported")
        patches = tokens[:, tokens.shape[1] - self.cells**2 :]  # class and register tokens come first
        maps = patches.float().transpose(1, 2).reshape(len(images), -1, self.cells, self.cells).cpu()
        return torch.stack([finite(values, self, image) for values, image in zip(maps, images, strict=True)])

    def prepare(self, rgb: np.ndarray) -> torch.Tensor:
        """(h, w, 3) uint8 to the normalised canvas (3, side, side), side = cells * patch."""
        canvas = resize_pad(rgb, self.cells * self.patch)
        return (torch.from_numpy(canvas).permute(2, 0, 1).float() / 255 - self.mean) / self.std


class _LastBlock(torch.nn.Module):
    """What the last transformer block of a model gives for pixels (B, 3, side, side): (B, tokens, C), before any final norm."""

    def __init__(self, model: Any):
        super().__init__()
        self.model, self.last = model, _blocks(model)[-1]
        self.arguments = {"interpolate_pos_encoding": True} if _interpolates(model) else {}

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        kept = []
        # blocks return a tensor, those of older versions of the library a tuple that starts with it
        hook = self.last.register_forward_hook(lambda m, a, output: kept.append(output if torch.is_tensor(output) else output[0]))
        try:
            self.model(pixel_values=pixels, **self.arguments)
        finally:
            hook.remove()
        return kept[-1]


def _patch(model: Any) -> int:
    patch = model.config.patch_size
    return patch if isinstance(patch, int) else patch[0]


def _blocks(model: Any) -> torch.nn.ModuleList:
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList) and name.rpartition(".")[2] in BLOCK_LISTS and len(module):
            return module
    raise InputError(f"{type(model).__name__} has no list of transformer blocks; this kind of model is not supported")


def _interpolates(model: Any) -> bool:
    return "interpolate_pos_encoding" in inspect.signature(model.forward).parameters


def fix_positions(model: Any, cells: int) -> None:
    """Gives a DINOv2 ``model`` the position embeddings of its original release for a grid of ``cells`` x ``cells`` patches.

    That release samples them with the scale ``(cells + 0.1) / stored``, bicubic without antialiasing, the transformers
    library with ``cells / stored``. Other models are left as they are; those with registers were released with the
    library's way of sampling.
    """
    if model.config.model_type != "dinov2":
        return
    stored = model.embeddings.position_embeddings
    side = round((stored.shape[1] - 1) ** 0.5)
    if side == cells:
        return
    positions = stored[:, 1:].detach().float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = (cells + 0.1) / side
    positions = torch.nn.functional.interpolate(positions, scale_factor=(scale, scale), mode="bicubic", align_corners=False)
    positions = torch.cat([stored[:, :1].detach().float(), positions.flatten(2).transpose(1, 2)], dim=1)
    model.embeddings.position_embeddings = torch.nn.Parameter(positions.to(stored.dtype), requires_grad=False)


def load_transformer(
    family: str,
    argument: str,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    side: int | str | None = None,
    runtime: str = "pytorch",
) -> TransformerBackbone:
    """The :class:`TransformerBackbone` of a short name, hub id or local path; see ``weights.store`` for missing ones.

    revision: another commit than the pinned one;  device, dtype: see :mod:`.precision`;  side: of the square canvas in pixels, a
    multiple of the patch; the published one has 60 patches;  runtime: see :class:`TransformerBackbone`.
    """
    located = locate(known_weights(family, argument, "base"), revision)
    model = load_pretrained(require("transformers", "hf").AutoModel, located.folder, "vision model", ignore_mismatched_sizes=True)
    model = getattr(model, "vision_model", model)  # two-towered models
    where = choose_device(device)
    mean, std = read_normalisation(located.folder)
    number_format = choose_dtype(dtype, where, model.config.model_type)
    return TransformerBackbone(model, located.digest()[:8], _cells(side, model), mean, std, where, number_format, runtime)


def _cells(side: str | int | None, model: Any) -> int:
    """Patches per side of a canvas of ``side`` pixels, a text or a number; of the published one for None."""
    patch = _patch(model)
    if side is None:
        return CANVAS_CELLS
    if not str(side).isdigit() or not int(side) or int(side) % patch:
        raise InputError(f"side={side}: the canvas has a whole number of patches, so its side is a multiple of {patch} pixels")
    return int(side) // patch


def read_normalisation(folder: str | Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of ``preprocessor_config.json`` in a model folder; those of ImageNet where it is absent."""
    path = Path(folder) / "preprocessor_config.json"
    stored = read_json(path, dict) if path.is_file() else {}
    return tuple(stored.get("image_mean", IMAGENET_MEAN)), tuple(stored.get("image_std", IMAGENET_STD))
