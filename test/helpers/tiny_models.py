"""Tiny randomly initialised models of the very same classes as the pretrained ones.

They run every line of the providers without weights, for tests and for measuring; what they find in an image means nothing.
"""

import torch

from semalign3d_core.perception.providers import require

TRANSFORMERS = ("dinov2", "dinov2_with_registers", "dinov3_vit", "vit")


def tiny_transformer(family="dinov2", layers=2, width=24):
    """A vision transformer of one of ``TRANSFORMERS``; patches of 14 pixels for DINOv2, 16 for the others."""
    t = require("transformers", "hf")
    classes = {
        "dinov2": (t.Dinov2Config, t.Dinov2Model, {"patch_size": 14, "image_size": 70}),
        "dinov2_with_registers": (t.Dinov2WithRegistersConfig, t.Dinov2WithRegistersModel, {"patch_size": 14, "image_size": 70}),
        "dinov3_vit": (t.DINOv3ViTConfig, t.DINOv3ViTModel, {"patch_size": 16, "num_register_tokens": 4}),
        "vit": (t.ViTConfig, t.ViTModel, {"patch_size": 16, "image_size": 64}),
    }
    config_class, model_class, options = classes[family]
    shape = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 2 * width}
    return _seeded(lambda: model_class(config_class(**shape, **options)))


def tiny_diffusion():
    """(VAE, U-Net, prompt embedding (1, 7, 12)) in the shape of Stable Diffusion 1.x: four levels, an eightfold encoder."""
    d = require("diffusers", "hf")
    unet = {"block_out_channels": (8, 16, 32, 32), "cross_attention_dim": 12, "attention_head_dim": 2, "norm_num_groups": 4}
    vae = {"block_out_channels": (4, 4, 8, 8), "latent_channels": 4, "norm_num_groups": 2}
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    return _seeded(lambda: (d.AutoencoderKL(**vae, **blocks), d.UNet2DConditionModel(sample_size=8, **unet), torch.randn(1, 7, 12)))


def tiny_captioner():
    """(CLIP vision model, {name: learned tensor}) that fit :func:`tiny_diffusion`."""
    from semalign3d_core.perception.backbones.captioner import LEARNED

    t = require("transformers", "hf")
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = t.CLIPVisionConfig(**shape, image_size=28, patch_size=14, projection_dim=10)
    shapes = ((12, 10), (12,), (1, 7, 12), (1, 7, 12), (32, 10), (32,), (1, 1, 32), (32,))
    return _seeded(lambda: (t.CLIPVisionModelWithProjection(config), {n: torch.randn(s) for n, s in zip(LEARNED, shapes, strict=True)}))


def tiny_depth(kind="relative"):
    """A Depth Anything V2 model; kind ``relative`` or ``metric``."""
    t = require("transformers", "hf")
    shape = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
    outputs = {"out_indices": [1, 2, 3, 4], "apply_layernorm": True, "reshape_hidden_states": False}
    backbone = t.Dinov2Config(**shape, image_size=56, patch_size=14, **outputs)
    neck = {"reassemble_hidden_size": 16, "neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8, "head_hidden_size": 4}
    config = t.DepthAnythingConfig(backbone_config=backbone, **neck, depth_estimation_type=kind)
    return _seeded(lambda: with_a_lively_head(t.DepthAnythingForDepthEstimation(config)))


def with_a_lively_head(depth_model):
    """``depth_model`` with random convolutions that keep the size of the signal, as trained ones do.

    The library's own random weights let it fade away from one convolution to the next, out of the range of half precision.
    """
    for part in (*depth_model.neck.modules(), *depth_model.head.modules()):
        if isinstance(part, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            torch.nn.init.kaiming_normal_(part.weight)
    depth_model.head.conv3.weight.data.abs_()  # depth is not negative: a random last layer may give nothing but zeros
    return depth_model


def tiny_sam():
    """A SAM model for images of 128 x 128 pixels."""
    t = require("transformers", "hf")
    vision = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 32, "num_pos_feats": 8, "output_channels": 16}
    prompt = {"hidden_size": 16, "image_size": 128, "patch_size": 16, "mask_input_channels": 4}
    decoder = {"hidden_size": 16, "mlp_dim": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
    config = t.SamConfig(
        vision_config=vision | {"image_size": 128, "patch_size": 16, "window_size": 4, "global_attn_indexes": [1]},
        prompt_encoder_config=prompt,
        mask_decoder_config=decoder,
    )
    return _seeded(lambda: t.SamModel(config))


def tiny_sam2():
    """A SAM 2 model for images of 128 x 128 pixels."""
    t = require("transformers", "hf")
    backbone = {"model_type": "sam2_hiera_det_model", "hidden_size": 8, "image_size": [128, 128], "blocks_per_stage": [1, 1, 2, 1]}
    stages = {"embed_dim_per_stage": [8, 16, 32, 64], "num_attention_heads_per_stage": [1, 1, 2, 2], "window_size_per_stage": [4, 4, 4, 4]}
    vision = {
        "backbone_config": backbone | stages | {"global_attention_blocks": [3]},
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        "fpn_hidden_size": 32,
    }
    prompt = {"hidden_size": 32, "image_size": 128, "patch_size": 16, "mask_input_channels": 4}
    decoder = {"hidden_size": 32, "mlp_dim": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
    config = t.Sam2Config(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    return _seeded(lambda: t.Sam2Model(config))


def _seeded(make, seed=0):
    """What ``make`` draws with a fixed seed, without touching the global generator's state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()
