"""Vectors of GeoAware-SC: features, post-processor, inference and pose alignment."""

import torch
from compare import difference, exact
from published.pose_alignment import PosePair, adaptive_transfer, transfer_on_canvas

from semalign3d_core.geometry.image_grid import CANVAS_CELLS, patch_index
from semalign3d_core.geometry.readouts import kernel_soft_arg_max, soft_arg_max, window_soft_arg_max
from semalign3d_core.learned.geoaware.network import AggregationNetwork
from semalign3d_core.matchers.imd import masked_imd, mutual_nearest_distance
from semalign3d_core.matchers.pose_prediction import vote_pose
from semalign3d_core.perception.backbones.diffusion_steps import add_noise, merge_crops, noise_schedule, shared_noise
from semalign3d_core.perception.backbones.freeu import apply_freeu, filter_low_frequencies
from semalign3d_core.perception.backbones.fused import fuse_maps, to_tokens, unit_norm, zero_shot_normalize

PIXELS = 5e-3  # tolerance of soft positions on the 840 canvas


def _tensors(arrays):
    return {name: torch.from_numpy(value) for name, value in arrays.items()}


def check_aggregation_network(arrays, path):
    t = _tensors(arrays)
    network = AggregationNetwork(t["feature_dims"].tolist(), int(t["projection_dim"]), int(t["num_norm_groups"])).eval()
    network.load_state_dict({name[4:]: value for name, value in t.items() if name.startswith("sd::")})
    with torch.inference_mode():
        output = network(t["input"])
    yield difference("output", output, t["output"])
    yield difference("map", output / (output.norm(dim=1, keepdim=True) + 1e-8), t["output_l2norm_map"])
    yield difference("tokens", unit_norm(to_tokens(output)), t["output_l2norm_tokens"])


def check_zero_shot_normalize(arrays, path):
    yield difference("out", zero_shot_normalize(torch.from_numpy(arrays["feats"])), arrays["out"])


def check_feature_fusion(arrays, path):
    t = _tensors(arrays)
    yield difference("fused", to_tokens(fuse_maps(t["s3"], t["s4"], t["s5"], t["dino"])), t["fused_tokens"])


def check_freeu(arrays, path):
    t = _tensors(arrays)
    for name in t:
        if name.startswith("y"):
            size, factor = name[1:].split("_s")
            yield difference(name, filter_low_frequencies(t[f"x{size}"], float(factor)), t[name])
        if name.startswith("hidden"):
            hidden = t[name]
            yield difference(name, apply_freeu(hidden, torch.zeros_like(hidden))[0], t[name.replace("hidden", "captured")])


def check_sd_sliding_merge(arrays, path):
    t = _tensors(arrays)
    origins = t["crop_origin_yx"].tolist()
    for level in sorted(name.removeprefix("merged_") for name in t if name.startswith("merged_")):
        maps = [t[f"crop{i}_{level}"] for i in range(len(origins))]
        yield difference(level, merge_crops(maps, origins, 960, 512), t[f"merged_{level}"])


def check_sd_noise(arrays, path):
    t = _tensors(arrays)
    signal, spread = noise_schedule()
    yield difference("signal", signal[t["t"]], t["sqrt_alphas_cumprod"])
    yield difference("spread", spread[t["t"]], t["sqrt_one_minus_alphas_cumprod"])
    yield difference("noise", shared_noise(tuple(t["shared_noise"].shape)), t["shared_noise"])
    yield difference("latent", add_noise(t["latent"], 50, t["shared_noise"]), t["noisy_latent_t50"])


READOUTS = {"nn": "nearest_neighbour", "softargmax": "soft_argmax", "window": "window_soft_argmax", "gauss": "kernel_soft_argmax"}
POSITIONS = {"softargmax": lambda s, w: soft_arg_max(s), "window": window_soft_arg_max, "gauss": kernel_soft_arg_max}


def _width(name):
    """("window", 7) of "window7"."""
    kind = name.rstrip("0123456789")
    return kind, int(name[len(kind) :] or 1)


def check_inference_60(arrays, path):
    t = _tensors(arrays)
    source, target = t["desc_src"][0], t["desc_trg"][0]
    yield exact("patch_idx", patch_index(t["kps_src"]), t["patch_idx"])
    similarity = (source[::7] @ target.T).reshape(-1, CANVAS_CELLS, CANVAS_CELLS)
    for name in t:
        what, _, rest = name.partition("_")
        kind, width = _width(rest)
        if what == "pred":
            yield difference(name, transfer_on_canvas(source, target, t["kps_src"], READOUTS[kind], width), t[name], PIXELS)
        if what == "map":
            yield difference(name, POSITIONS[kind](similarity, width), t[name], PIXELS / 14)


def check_soft_argmax_12(arrays, path):
    t = _tensors(arrays)
    for name in t:
        if name.startswith("coords_"):
            _, kind, window = name.split("_")
            similarity = t[f"corr_{kind}"].reshape(144, 12, 12)
            width = int(window[1:])
            found = window_soft_arg_max(similarity, width) if width else soft_arg_max(similarity)
            yield difference(name, found.reshape(12, 12, 2), t[name])


def check_imd(arrays, path):
    t = _tensors(arrays)
    source, target, mirrored = t["desc_src"][0], t["desc_trg"][0], t["desc_src_flip"][0]
    masks = t["mask_src"], t["mask_trg"]
    yield difference("masked", masked_imd(source, target, *masks), t["imd_masked"])
    yield difference("masked_flip", masked_imd(mirrored, target, t["mask_src_flip"], t["mask_trg"]), t["imd_masked_flip"])
    yield difference("fullmask", masked_imd(source, target, torch.ones(96, 96), torch.ones(96, 96)), t["imd_fullmask"])
    relu = masked_imd(t["relu_desc_src"][0], t["relu_desc_trg"][0], *masks, parity=True)
    yield difference("relu", relu, t["relu_imd_masked"])
    yield difference("mutual", mutual_nearest_distance(source, target), t["mutual_nn"])
    yield difference("mutual_flip", mutual_nearest_distance(mirrored, target), t["mutual_nn_flip"])


def check_adaptive_pose(arrays, path):
    t = _tensors(arrays)
    masks = {"source_mask": t["mask_src"], "mirrored_mask": t["mask_src_flip"], "target_mask": t["mask_trg"]}
    for n in range(len(t["pred_masked"])):
        keypoints = t["kps"][2 * n : 2 * n + 2]
        visible = keypoints[0, :, 2] * keypoints[1, :, 2] > 0
        tokens = [t[f"desc_{part}_{n}"][0] for part in ("src", "src_flip", "trg")]
        plain = PosePair(*tokens, *keypoints, t["permutation"])
        masked = PosePair(*tokens, *keypoints, t["permutation"], **masks)
        yield difference(f"dist_masked {n}", torch.stack(masked.distances()), t["dist_masked"][n])
        yield difference(f"dist_mutual {n}", torch.stack(plain.distances()), t["dist_mutual"][n])
        unadapted = transfer_on_canvas(tokens[0], tokens[2], keypoints[0], width=5)
        for label, found in (("noadapt", unadapted), ("masked", adaptive_transfer(masked)), ("mutual", adaptive_transfer(plain))):
            yield difference(f"{label} {n}", found[visible], t[f"pred_{label}"][n][visible], PIXELS)


def check_pose_vote(arrays, path):
    t = _tensors(arrays)
    front, right, four_way = vote_pose(t["distances"])
    yield exact("front or back", front, t["pred_fb"])
    yield exact("left or right", right, t["pred_lr"])
    yield exact("four-way", four_way, t["pred_4way"])


CHECKS = {
    "aggregation_network_a": check_aggregation_network,
    "aggregation_network_b": check_aggregation_network,
    "zero_shot_normalize": check_zero_shot_normalize,
    "feature_fusion": check_feature_fusion,
    "freeu": check_freeu,
    "sd_sliding_merge": check_sd_sliding_merge,
    "sd_noise": check_sd_noise,
    "inference_60": check_inference_60,
    "soft_argmax_12": check_soft_argmax_12,
    "imd": check_imd,
    "adaptive_pose": check_adaptive_pose,
    "pose_vote": check_pose_vote,
}
