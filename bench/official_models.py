"""The pretrained networks in their official sizes with random weights: they cost what the real ones cost, and find nothing.

Sizes are those of the published configurations; parameters are counted against the table of weights by bench/providers.py.
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test" / "helpers"))

from tiny_models import with_a_lively_head

from semalign3d_core.perception.backbones.captioner import LEARNED

# width, layers, heads
VITS = {"small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16), "giant": (1536, 40, 24)}
# layers whose tokens the depth head reads, widths of its levels, width of its fusion
DEPTH_HEADS = {
    "small": ([3, 6, 9, 12], [48, 96, 192, 384], 64),
    "base": ([3, 6, 9, 12], [96, 192, 384, 768], 128),
    "large": ([5, 12, 18, 24], [256, 512, 1024, 1024], 256),
}
# width, layers, heads, layers with global attention
SAMS = {"base": (768, 12, 12, [2, 5, 8, 11]), "large": (1024, 24, 16, [5, 11, 17, 23]), "huge": (1280, 32, 16, [7, 15, 23, 31])}
# width of the first stage, blocks per stage, heads of the first stage, blocks with global attention, windows, background of positions
SAM2S = {
    "tiny": (96, [1, 2, 7, 2], 1, [5, 7, 9], [8, 4, 14, 7], [7, 7]),
    "small": (96, [1, 2, 11, 2], 1, [7, 10, 13], [8, 4, 14, 7], [7, 7]),
    "base_plus": (112, [2, 3, 16, 3], 2, [12, 16, 20], [8, 4, 14, 7], [14, 14]),
    "large": (144, [2, 6, 36, 4], 2, [23, 33, 43], [8, 4, 16, 8], [7, 7]),
}


def _shape(size):
    width, layers, heads = VITS[size]
    return {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}


def dinov2(name):
    """``small`` to ``giant``, with ``_registers`` behind it for the variants that have some."""
    import transformers as t

    size, _, registers = name.partition("_")
    options = {**_shape(size), "image_size": 518, "patch_size": 14, "use_swiglu_ffn": size == "giant"}
    if registers:
        return t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(**options, num_register_tokens=4))
    return t.Dinov2Model(t.Dinov2Config(**options))


def dinov3(size):
    import transformers as t

    options = {"patch_size": 16, "num_register_tokens": 4, "key_bias": False, "intermediate_size": 4 * VITS[size][0]}
    return t.DINOv3ViTModel(t.DINOv3ViTConfig(**_shape(size), **options))


def stable_diffusion():
    """(VAE, U-Net, prompt embedding) of Stable Diffusion 1.5."""
    import diffusers as d

    four = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    vae = d.AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, sample_size=512, **four)
    return vae, d.UNet2DConditionModel(sample_size=64, cross_attention_dim=768), torch.randn(1, 77, 768)


def clip_vision():
    import transformers as t

    shape = {**_shape("large"), "intermediate_size": 4096, "image_size": 336, "patch_size": 14, "projection_dim": 768}
    return t.CLIPVisionModelWithProjection(t.CLIPVisionConfig(**shape))


def captioner_tensors():
    """{name: tensor} that ODISE learned, in its shapes."""
    shapes = ((768, 768), (768,), (1, 77, 768), (1, 77, 768), (1280, 768), (1280,), (1, 1, 1280), (1280,))
    return {name: torch.randn(shape) for name, shape in zip(LEARNED, shapes, strict=True)}


def depth_anything(size):
    import transformers as t

    layers, widths, fusion = DEPTH_HEADS[size]
    outputs = {"out_indices": layers, "apply_layernorm": True, "reshape_hidden_states": False}
    backbone = t.Dinov2Config(**_shape(size), image_size=518, patch_size=14, **outputs)
    head = {"reassemble_hidden_size": VITS[size][0], "neck_hidden_sizes": widths, "fusion_hidden_size": fusion}
    return with_a_lively_head(t.DepthAnythingForDepthEstimation(t.DepthAnythingConfig(backbone_config=backbone, **head)))


def sam(size):
    import transformers as t

    width, layers, heads, everywhere = SAMS[size]
    shape = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "mlp_dim": 4 * width}
    return t.SamModel(t.SamConfig(vision_config={**shape, "global_attn_indexes": everywhere}))


def sam2(size):
    import transformers as t

    width, blocks, heads, everywhere, windows, background = SAM2S[size]
    widths = [width * 2**stage for stage in range(4)]
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": width,
        "num_attention_heads": heads,
        "embed_dim_per_stage": widths,
        "num_attention_heads_per_stage": [heads * 2**stage for stage in range(4)],
        "blocks_per_stage": blocks,
        "global_attention_blocks": everywhere,
        "window_size_per_stage": windows,
        "window_positional_embedding_background_size": background,
    }
    return t.Sam2Model(t.Sam2Config(vision_config={"backbone_config": backbone, "backbone_channel_list": widths[::-1]}))
