"""Vectors of the correspondence metrics."""

import numpy as np
import torch
from compare import difference, exact

from semalign3d_core.geometry.image_grid import canvas_placement, keypoints_to_canvas, patch_index
from semalign3d_core.metrics.aggregate import PckAccumulator, weighted_mean
from semalign3d_core.metrics.average_precision import average_precision
from semalign3d_core.metrics.kap import KAP_VARIANTS, KapAccumulator, KapPair, kap_samples
from semalign3d_core.metrics.pck import pck_correct, pck_dagger_correct

ATOL = {"atol": 1e-5, "rtol": 0}


def scores(correct, common, alphas):
    """(per_point, per_image, each_pair) of one category; pairs without common keypoints are skipped."""
    accumulator = PckAccumulator(alphas)
    each = [accumulator.add("all", c[m]) for c, m in zip(correct, common, strict=True)]
    pck = accumulator.summary()["all"]["pck"]
    point, image = (np.array([v[name] for v in pck.values()], np.float64) / 100 for name in ("per_point", "mean_of_categories"))
    return point, image, each


def _visible(data):
    return data["src_kps"][..., 2] > 0, data["trg_kps"][..., 2] > 0


def _pck(data, path):
    source, target = _visible(data)
    common, truth, pred = source & target, data["trg_kps"][..., :2], data["pred_xy"]
    yield exact("n_points", common.sum(), data["n_points"])
    yield exact("n_pairs", len(common), data["n_pairs"])
    side = np.full(len(common), float(data["anno_size"]))
    for suffix, threshold, alphas in (("", data["threshold"], data["alphas"]), ("_imgsize", side, data["alphas_imgsize"])):
        measured = {
            "pck": pck_correct(pred, truth, threshold, alphas),
            "pckd": pck_dagger_correct(pred, truth, common, threshold, alphas),
        }
        for name, correct in measured.items():
            point, image, each = scores(correct, common, alphas)
            yield difference(f"{name}{suffix}_per_point", point, data[f"{name}{suffix}_per_point"], **ATOL)
            yield difference(f"{name}{suffix}_per_image", image, data[f"{name}{suffix}_per_image"], **ATOL)
            if not suffix:
                yield difference(f"{name}_each_pair", each, data[f"{name}_each_pair"], **ATOL)


def _pck_aggregate(data, path):
    source, target = _visible(data)
    common, alphas = source & target, (0.1, 0.05, 0.01)
    correct = pck_correct(data["pred_xy"], data["trg_kps"][..., :2], data["threshold"], alphas)
    point, image, each = scores(correct, common, alphas)
    yield difference("per_point", point, data["per_point"], **ATOL)
    # The reference's mean is NaN when a pair has no common keypoint; ours skips and counts such pairs.
    with_nan = [np.full(3, np.nan) if e is None else e for e in each]
    yield difference("per_image of all pairs", np.mean(with_nan, axis=0), data["per_image"], **ATOL)
    yield difference("per_image of pairs with a score", image, np.nanmean(with_nan, axis=0), **ATOL)
    yield difference("weighted", weighted_mean(data["cat_scores"], data["cat_weights"]), data["weighted"], **ATOL)


def _kap_pair(data, i):
    source, target = _visible(data)
    similarity = data["src_desc"][i][data["src_patch_idx"][i]] @ data["trg_desc"][i].T
    return KapPair(similarity, data["trg_kps"][i, :, :2], source[i], target[i], float(data["threshold"][i]), float(data["anno_size"]))


def _kap(data, path):
    alphas = [float(a) for a in data["alphas"]]
    pairs = [_kap_pair(data, i) for i in range(len(data["src_kps"]))]
    for variant in ("as_released", "visible_only"):
        samples = np.array([[KAP_VARIANTS[variant](p, a) for a in alphas] for p in pairs])
        yield difference(f"pos_{variant}", samples[:, :, 0], data[f"pos_{variant}"], **ATOL)
        yield difference(f"neg_{variant}", samples[:, :, 1], data[f"neg_{variant}"], **ATOL)
    for variant in KAP_VARIANTS:
        accumulator = KapAccumulator(alphas, variant)
        each = [accumulator.add("all", p) for p in pairs]
        result = accumulator.summary()["per_category"]["all"]["kap"].values()
        yield difference(f"kap_{variant}_each_pair", each, data[f"kap_{variant}_each_pair"], **ATOL)
        yield difference(f"kap_{variant}_pooled", [v["pooled"] / 100 for v in result], data[f"kap_{variant}_pooled"], **ATOL)
        if variant == "as_released":
            yield difference("per_image", [v["per_image"] / 100 for v in result], data["kap_as_released_per_image"], **ATOL)
    entries = sum(len(kap_samples(p, alphas[0], "spherical")[0]) for p in pairs)
    yield exact("spherical_n_entries", entries, data["spherical_n_entries"])


def average_precision_rows(data, path):
    ap = [average_precision(s, y) for s, y in zip(data["scores"], data["labels"], strict=True)]
    yield difference("ap", ap, data["ap"], atol=1e-5, rtol=0)


def _keypoint_padding(data, path):
    side = int(data["anno_size"])
    for i, (width, height) in enumerate(data["img_wh"]):
        scale, offset = canvas_placement(int(width), int(height), side)
        moved = keypoints_to_canvas(data["kps"][i], int(width), int(height), side)
        yield difference(f"kps_padded {i}", moved, data["kps_padded"][i], atol=1e-3, rtol=0)
        yield difference(f"placement {i}", [*offset, scale], data["offset_x_y_scale"][i], **ATOL)
        x1, y1, x2, y2 = data["bbox_xyxy"][i]
        yield difference(f"threshold {i}", max(x2 - x1, y2 - y1) * scale, data["threshold"][i], **ATOL)


def _nn_transfer(data, path):
    from semalign3d_core.geometry.readouts import arg_max, soft_arg_max, window_soft_arg_max

    cells, side = int(data["num_patches"]), float(data["anno_size"])
    stride = side / cells
    for i, keypoints in enumerate(data["src_kps"]):
        index = patch_index(keypoints, side, cells)
        yield exact(f"src_patch_idx {i}", index, data["src_patch_idx"][i])
        similarity = torch.from_numpy(data["src_desc"][i])[index] @ torch.from_numpy(data["trg_desc"][i]).T
        similarity = similarity.reshape(-1, cells, cells)
        found = {
            "pred_hard": arg_max(similarity),
            "pred_soft_window2": window_soft_arg_max(similarity, 2),
            "pred_soft_full": soft_arg_max(similarity),
        }
        for name, position in found.items():
            pixels = position.clamp(0, cells - 1) * stride + stride // 2
            yield difference(f"{name} {i}", pixels, data[name][i], atol=1e-3 if name == "pred_hard" else 2e-2, rtol=0)


CHECKS = {
    "nn_transfer": _nn_transfer,
    "pck": _pck,
    "pck_aggregate": _pck_aggregate,
    "kap": _kap,
    "average_precision": average_precision_rows,
    "keypoint_padding": _keypoint_padding,
}
