"""Features of the Stable Diffusion decoder, crop by crop.

Source: GeoAware-SC (CVPR 2024), section "Stable Diffusion features": the hidden state that enters the last residual block of
each of the first three decoder levels, FreeU scaling included, at noise step 50 with one shared noise. The published
features come with ODISE's implicit captioner (:mod:`.captioner`); without it the prompt is the empty text.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from semalign3d_core.geometry.image_grid import SquareGrid, resize_pad
from semalign3d_core.perception.backbones import FeatureBackbone
from semalign3d_core.perception.backbones.captioner import load_captioner
from semalign3d_core.perception.backbones.diffusion_steps import NOISE_STEPS, SlidingCrops, add_noise, merge_crops
from semalign3d_core.perception.backbones.freeu import apply_freeu
from semalign3d_core.perception.backbones.fused import to_tokens, unit_norm
from semalign3d_core.perception.backbones.precision import choose_device, choose_dtype, finite, place
from semalign3d_core.perception.evidence import FeatureMap, ImageInput
from semalign3d_core.perception.providers import first_line, require
from semalign3d_core.perception.weights.pretrained import load_pretrained
from semalign3d_core.perception.weights.store import known_weights, locate
from semalign3d_core.runtime.errors import FileFormatError, InputError, choice

LEVELS = ("s5", "s4", "s3")  # decoder levels 0, 1, 2
PUBLISHED_STEP = 50
# what is kept of the state that enters a block: the hidden state alone, or with the filtered skip behind it
RECORDS = {"hidden": lambda hidden, skip: hidden, "concatenated": lambda hidden, skip: torch.cat([hidden, skip], dim=1)}


@dataclass(frozen=True)
class DiffusionConfig:
    """Settings of the features.

    crops: :class:`SlidingCrops`;  step: noise step, 0-based (50; 100 in the pose prediction experiment);
    record: ``hidden`` (published features) or ``concatenated`` (hidden state and filtered skip; pose prediction experiment)
    """

    crops: SlidingCrops = SlidingCrops()
    step: int = PUBLISHED_STEP
    record: str = "hidden"

    def __post_init__(self) -> None:
        choice("record", self.record, RECORDS)
        if not 0 <= self.step < NOISE_STEPS:
            raise InputError(f"noise step {self.step}: choose one of 0 to {NOISE_STEPS - 1}")


class StableDiffusionBackbone(FeatureBackbone):
    """Stable Diffusion 1.x behind the backbone protocol.

    vae, unet: diffusers models;  text: (1, 77, C) embedding of the prompt;  label: identifies the weights;
    captioner: :class:`~semalign3d_core.perception.backbones.captioner.ImplicitCaptioner` or None.
    Memory is bounded by one crop: crops are processed one after the other.
    """

    def __init__(
        self,
        vae: Any,
        unet: Any,
        text: torch.Tensor,
        label: str,
        config: DiffusionConfig | None = None,
        captioner: Any = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        self.config = config or DiffusionConfig()
        self.device, self.dtype = torch.device(device), dtype
        self.vae, self.unet = place(vae, self.device, dtype), place(unet, self.device, dtype)
        self.text, self.captioner = text.to(self.device, dtype), captioner
        self.channels = sum(_recorded_channels(unet, self.config.record))
        caption = "" if captioner is None else f"-{captioner.name}"
        setting = "" if self.config == DiffusionConfig() else f"-t{self.config.step}-{self.config.record}-{self.config.crops.side}"
        self.name = f"sd-{self.channels}@{label}{caption}{setting}"

    def extract(self, image: ImageInput) -> FeatureMap:
        """Features (C, cells, cells) of the three levels side by side, unit norm; see the backbone protocol."""
        levels = self.levels(image)
        size = levels["s3"].shape[-2:]
        raised = [torch.nn.functional.interpolate(levels[s], size=size, mode="bilinear", align_corners=False) for s in ("s3", "s4", "s5")]
        fused = torch.cat(raised, dim=1)
        values = unit_norm(to_tokens(fused))[0].T.reshape(fused.shape[1:]).contiguous()
        return FeatureMap(values, SquareGrid(image.height, image.width, size[0], "canvas", image.window))

    @torch.no_grad()
    def levels(self, image: ImageInput) -> dict[str, torch.Tensor]:
        """{"s3", "s4", "s5"}: (1, C, n, n) float32 maps of the whole canvas, on the CPU."""
        crops = self.config.crops
        canvas = torch.from_numpy(resize_pad(image.seen(), crops.side)).permute(2, 0, 1).float()[None] / 255
        origins = crops.origins()
        parts = [self._crop_levels(canvas[..., y : y + crops.crop, x : x + crops.crop]) for y, x in origins]
        merged = {s: merge_crops([part[s] for part in parts], origins, crops.side, crops.crop) for s in LEVELS}
        return {s: finite(values, self, image).clone() for s, values in merged.items()}

    def _crop_levels(self, crop: torch.Tensor) -> dict[str, torch.Tensor]:
        """One crop (1, 3, n, n) in [0, 1] through encoder, noise and decoder: {level: (1, C, m, m) float32 on the CPU}."""
        pixels = ((crop - 0.5) / 0.5).to(self.device, self.dtype)
        latent = self.vae.encode(pixels).latent_dist.mean.float() * self.vae.config.scaling_factor
        noisy = add_noise(latent, self.config.step).to(self.dtype)
        text, time = (self.text, None) if self.captioner is None else self.captioner.condition(crop, self.text)
        kept: dict[str, torch.Tensor] = {}
        with recorded_levels(self.unet, kept, self.config.record), added_time(self.unet, time):
            self.unet(noisy, self.config.step, encoder_hidden_states=text)
        return kept


def _last_resnets(unet: Any) -> dict[str, Any]:
    """The residual blocks whose inputs are recorded: {level: module}."""
    return {level: block.resnets[-1] for level, block in zip(LEVELS, unet.up_blocks, strict=False)}


def _hidden_widths(unet: Any) -> dict[Any, int]:
    """{residual block of the decoder: channels of the hidden state that enters it, before the skip is appended}."""
    widths = list(reversed(unet.config.block_out_channels))
    return {
        resnet: widths[max(level - 1, 0)] if index == 0 else widths[level]
        for level, block in enumerate(unet.up_blocks)
        for index, resnet in enumerate(block.resnets)
    }


def _recorded_channels(unet: Any, record: str) -> list[int]:
    hidden = _hidden_widths(unet)
    return [hidden[r] if record == "hidden" else r.in_channels for r in _last_resnets(unet).values()]


@contextmanager
def recorded_levels(unet: Any, kept: dict[str, torch.Tensor], record: str = "hidden") -> Iterator[None]:
    """Inside the block, ``unet`` applies the published FreeU and writes {level: recorded map} into ``kept``."""
    widths, names = _hidden_widths(unet), {module: level for level, module in _last_resnets(unet).items()}
    widest = unet.config.block_out_channels[-1]

    def before(module: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden, skip = apply_freeu(arguments[0][:, : widths[module]], arguments[0][:, widths[module] :], widest)
        if module in names:
            kept[names[module]] = RECORDS[record](hidden, skip).float().cpu()
        return (torch.cat([hidden, skip], dim=1), *arguments[1:])

    hooks = [resnet.register_forward_pre_hook(before) for resnet in widths]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def added_time(unet: Any, extra: torch.Tensor | None) -> Iterator[None]:
    """Inside the block, ``extra`` (1, C) is added to the time embedding of ``unet``; None changes nothing."""
    if extra is None:
        yield
        return
    hook = unet.time_embedding.register_forward_hook(lambda module, arguments, output: output + extra.to(output))
    try:
        yield
    finally:
        hook.remove()


def load_diffusion(
    argument: str = "",
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    captioner: str = "",
    step: int | str = PUBLISHED_STEP,
    record: str = "hidden",
) -> StableDiffusionBackbone:
    """The :class:`StableDiffusionBackbone` of a short name, hub id or local folder in diffusers layout.

    captioner: checkpoint with ODISE's learned tensors (needs CLIP too), or empty for the empty prompt;
    step, record: see :class:`DiffusionConfig`.
    """
    located = locate(known_weights("sd", argument, "1.5"), revision)
    diffusers, transformers = require("diffusers", "hf"), require("transformers", "hf")
    where = choose_device(device)
    number_format, config = choose_dtype(dtype, where, "sd"), DiffusionConfig(step=int(step), record=record)
    vae = load_pretrained(diffusers.AutoencoderKL, located.folder, "Stable Diffusion", subfolder="vae")
    unet = load_pretrained(diffusers.UNet2DConditionModel, located.folder, "Stable Diffusion", subfolder="unet")
    encoder = load_pretrained(transformers.CLIPTextModel, located.folder, "Stable Diffusion", subfolder="text_encoder")
    text = embed_text(encoder, _tokenizer(transformers, located.folder), "")
    described = load_captioner(captioner, where, number_format) if captioner else None
    return StableDiffusionBackbone(vae, unet, text, located.digest()[:8], config, described, where, number_format)


def _tokenizer(transformers: Any, folder: Path) -> Any:
    try:
        return transformers.CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer", local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise FileFormatError(f"{folder} holds no complete tokenizer ({first_line(error)}); get it again") from error


@torch.no_grad()
def embed_text(encoder: Any, tokenizer: Any, text: str) -> torch.Tensor:
    """(1, length, C) embedding of a prompt, padded to the encoder's length."""
    length = encoder.config.max_position_embeddings
    tokens = tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return encoder.eval()(tokens.input_ids).last_hidden_state
