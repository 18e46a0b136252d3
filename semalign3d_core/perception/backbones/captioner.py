"""ODISE's implicit captioner: the prompt and an addition to the time embedding, computed from the crop itself.

Source: GeoAware-SC (CVPR 2024) over ODISE (CVPR 2023). The published features were computed with it, so the official
post-processor expects it; its few learned tensors come in ODISE's "label" checkpoint.
"""

from pathlib import Path

import torch

from semalign3d_core.perception.backbones.precision import place
from semalign3d_core.perception.providers import require
from semalign3d_core.perception.weights.pretrained import load_pretrained, read_state
from semalign3d_core.perception.weights.store import known_weights, locate
from semalign3d_core.runtime.errors import FileFormatError
from semalign3d_core.runtime.files import sha256_of_file

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
LEARNED = (
    "clip_project.linear.weight",
    "clip_project.linear.bias",
    "clip_project.positional_embedding",
    "alpha_cond",
    "time_embed_project.linear.weight",
    "time_embed_project.linear.bias",
    "time_embed_project.positional_embedding",
    "alpha_cond_time_embed",
)


class ImplicitCaptioner:
    """Conditions Stable Diffusion on the CLIP embedding of a crop.

    clip: transformers CLIP vision model with projection;  learned: {name of ``LEARNED``: tensor};  label: identifies both
    """

    def __init__(
        self,
        clip: torch.nn.Module,
        learned: dict[str, torch.Tensor],
        label: str,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        self.clip = place(clip, device, dtype)
        self.learned = {name: learned[name].to(device, torch.float32) for name in LEARNED}
        self.name, self.device, self.dtype = f"captioner@{label}", torch.device(device), dtype
        self.mean, self.std = (torch.tensor(v)[:, None, None] for v in (CLIP_MEAN, CLIP_STD))

    @torch.no_grad()
    def condition(self, crop: torch.Tensor, empty: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(text (1, 77, C), time (1, D)) of a crop (1, 3, n, n) in [0, 1]; ``empty`` is the embedding of the empty prompt."""
        embedding = self._embed(crop)
        t = self.learned
        text = torch.nn.functional.linear(embedding, t["clip_project.linear.weight"], t["clip_project.linear.bias"])
        text = empty + torch.tanh(t["alpha_cond"]) * (text[:, None] + t["clip_project.positional_embedding"])
        time = torch.nn.functional.linear(embedding, t["time_embed_project.linear.weight"], t["time_embed_project.linear.bias"])
        time = torch.tanh(t["alpha_cond_time_embed"]) * (time + t["time_embed_project.positional_embedding"][:, 0])
        return text.to(self.dtype), time.to(self.dtype)

    def _embed(self, crop: torch.Tensor) -> torch.Tensor:
        side = self.clip.config.image_size
        # the published preprocessing resizes tensors without antialiasing
        small = torch.nn.functional.interpolate(crop, size=(side, side), mode="bicubic", align_corners=False)
        pixels = ((small - self.mean) / self.std).to(self.device, self.dtype)
        return self.clip(pixel_values=pixels).image_embeds.float()


def load_captioner(path: str | Path, device: torch.device, dtype: torch.dtype) -> ImplicitCaptioner:
    """The :class:`ImplicitCaptioner` with the learned tensors of the checkpoint ``path``; any prefix of their names is accepted."""
    learned, state = {}, read_state(path)
    for wanted in LEARNED:
        found = [name for name in state if name == wanted or name.endswith(f".{wanted}")]
        if len(found) != 1:
            raise FileFormatError(f"{path}: expected one tensor named {wanted}, found {found or 'none'}; give ODISE's label checkpoint")
        learned[wanted] = state[found[0]]
    located = locate(known_weights("clip", "", "large_336"))
    kind = require("transformers", "hf").CLIPVisionModelWithProjection
    clip = load_pretrained(kind, located.folder, "CLIP vision model", ignore_mismatched_sizes=True)
    return ImplicitCaptioner(clip, learned, f"{sha256_of_file(path)[:8]}-{located.digest()[:8]}", device, dtype)
