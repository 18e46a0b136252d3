"""Vectors of SphericalMaps about keypoint preparation and metrics."""

import numpy as np
import torch
from checks_metrics import average_precision_rows, scores
from compare import difference, exact
from published.metrics import error_kinds

from semalign3d_core.geometry.image_grid import canvas_placement, keypoints_to_canvas, patch_index
from semalign3d_core.metrics.kap import KapAccumulator, KapPair, kap_samples, samples_as_released
from semalign3d_core.metrics.pck import (
    nearest_is_own,
    pck_correct,
    pck_correct_inclusive,
    pck_dagger_correct,
    pck_dagger_correct_inclusive,
)

CLOSE = {"atol": 1e-4, "rtol": 0}


def _keypoint_padding(data, path):
    side = int(data["size"])
    for i, (width, height) in enumerate(data["sizes_wh"].astype(int).tolist()):
        scale, offset = canvas_placement(width, height, side)
        moved = keypoints_to_canvas(data["kps_in"][i], width, height, side)
        yield difference(f"keypoints {i}", moved, data["kps_out"][i], atol=1e-3, rtol=1e-5)
        yield difference(f"placement {i}", [*offset, scale], data["offset_x_y_scale"][i], **CLOSE)


def _pck_dagger_demystifying(data, path):
    truth, pred = data["gt"].transpose(0, 2, 1), data["pred"].transpose(0, 2, 1)
    common = np.arange(truth.shape[1]) < data["n_points"][:, None]
    unit, alpha = data["bbox_max_side"], float(data["alpha"])
    marked = {
        "pck": pck_correct_inclusive(pred, truth, unit, [alpha])[..., 0] & common,
        "pck_dagger": pck_dagger_correct_inclusive(pred, truth, common, unit, [alpha])[..., 0],
        **error_kinds(pred, truth, common, unit, alpha),
    }
    count, some = common.sum(1), common.any(1)
    for name, mark in marked.items():
        pair = mark.sum(1) / np.maximum(count, 1)  # the reference writes 0 for pairs without keypoints
        yield difference(f"pair_{name}", pair[some], data[f"pair_{name}"][some], **CLOSE)
        mean = pair[some].mean() if name == "pck_dagger" else pair.mean()  # and leaves them out of the dagger mean only
        yield difference(f"mean_{name}", mean, data[f"mean_{name}"], **CLOSE)


def _pck_dagger_visible_only(data, path):
    truth, pred, unit, alphas = data["trg"], data["pred"], data["thresholds"], data["alphas"]
    common = (data["vis_src"] > 0) & (data["vis_trg"] > 0)
    yield exact("nearest_is_own", np.where(common, nearest_is_own(pred, truth, common), -1), data["nearest_is_own"])
    point, image, _ = scores(pck_dagger_correct(pred, truth, common, unit, alphas), common, alphas)
    yield difference("pck_dagger_per_keypoint", point, data["pck_dagger_per_keypoint"], **CLOSE)
    yield difference("pck_dagger_per_image", image, data["pck_dagger_per_image"], **CLOSE)
    point, _, _ = scores(pck_correct(pred, truth, unit, alphas), common, alphas)
    yield difference("pck_per_keypoint", point, data["pck_per_keypoint"], **CLOSE)


def _kap_later_variant(data, path):
    inputs = dict(np.load(path.with_name("pck_kap_pipeline.npz")))
    pairs = [_kap_pair(inputs, i, _cosine(*map(torch.from_numpy, inputs["dino"][i]))) for i in range(len(inputs["kps"]))]
    alphas = [float(a) for a in inputs["alphas"]]
    samples = [[samples_as_released(pair, alpha) for pair in pairs] for alpha in alphas]
    for k, name in enumerate(("positives", "negatives")):
        found = [np.concatenate([s[k][pair.source_visible] for s, pair in zip(row, pairs, strict=True)]) for row in samples]
        yield difference(name, found, data[name], **CLOSE)
    yield exact("n_per_pair", [pair.source_visible.sum() for pair in pairs], data["n_per_pair"])
    accumulator = KapAccumulator(alphas, "as_released")
    yield difference("ap_per_pair", [accumulator.add("all", pair) for pair in pairs], data["ap_per_pair"], **CLOSE)
    pooled = [v["pooled"] / 100 for v in accumulator.category_summary("all")["kap"].values()]
    yield difference("ap_pooled", pooled, data["ap_pooled"], **CLOSE)


def _pck_kap_pipeline(data, path):
    alphas = [float(a) for a in data["alphas"]]
    for mode in ("dino_cos", "fused_l2", "dino_cos_sph", "fused_l2_sph"):
        pairs = [_kap_pair(data, i, _similarity(data, i, mode)) for i in range(len(data["kps"]))]
        nearest = np.array([pair.similarity.argmax(axis=1) for pair in pairs])
        visible = np.array([pair.source_visible for pair in pairs])
        yield exact(f"nn_{mode}", nearest[visible], data[f"nn_{mode}"][visible])
        cells, stride = int(data["grid"]), float(data["stride"])
        pred = np.stack([nearest % cells, nearest // cells], axis=-1) * stride + (stride - 1) / 2
        common = visible & np.array([pair.target_visible for pair in pairs])
        correct = pck_correct(pred, data["kps"][:, 1, :, :2], data["thresholds"], alphas)
        yield difference(f"pck_{mode}", scores(correct, common, alphas)[0], data[f"pck_{mode}"], **CLOSE)
        accumulator = KapAccumulator(alphas, "spherical")
        for pair in pairs:
            accumulator.add("all", pair)
        pooled = [v["pooled"] / 100 for v in accumulator.category_summary("all")["kap"].values()]
        yield difference(f"kap_{mode}", pooled, data[f"kap_{mode}"], **CLOSE)
        for i, alpha in enumerate(alphas):
            found, labels = (np.concatenate(part) for part in zip(*(kap_samples(p, alpha, "spherical") for p in pairs), strict=True))
            yield difference(f"kap_scores_{mode} {alpha:g}", found, data[f"kap_scores_{mode}"][i], **CLOSE)
            yield exact(f"kap_labels_{mode} {alpha:g}", labels, data[f"kap_labels_{mode}"][i])


def _kap_pair(data, i, similarity):
    source, target = data["kps"][i]
    index = patch_index(source, float(data["img_size"]), int(data["grid"]))
    rows, seen = similarity(index).numpy(), (source[:, 2] > 0, target[:, 2] > 0)
    return KapPair(rows, target[:, :2], *seen, float(data["thresholds"][i]), float(data["img_size"]))


def _similarity(data, i, mode):
    """Fused similarity of source tokens to all target tokens, as a function of the tokens' indices."""
    sd, dino = (torch.from_numpy(data[name][i]) for name in ("sd", "dino"))
    unit = torch.nn.functional.normalize
    fused = torch.cat([unit(sd, dim=-1), unit(dino, dim=-1)], dim=-1)
    features, measure = (dino, _cosine) if mode.startswith("dino") else (fused, _negative_l2)
    of_features = measure(*features)
    if not mode.endswith("_sph"):
        return of_features
    weight, bias = (torch.from_numpy(data[f"sph_linear_{name}"]) for name in ("weight", "bias"))  # stand-in for the mapper
    of_sphere = measure(*unit(dino @ weight.T + bias, dim=-1))
    return lambda index: 0.8 * of_features(index) + 0.2 * of_sphere(index)


def _cosine(source, target):
    source, target = (torch.nn.functional.normalize(v, dim=-1) for v in (source, target))
    return lambda index: source[index] @ target.T


def _negative_l2(source, target):
    return lambda index: -(source[index][:, None] - target[None] + 1e-6).norm(dim=-1)


CHECKS = {
    "keypoint_padding": _keypoint_padding,
    "average_precision": average_precision_rows,
    "pck_dagger_demystifying": _pck_dagger_demystifying,
    "pck_dagger_visible_only": _pck_dagger_visible_only,
    "kap_later_variant": _kap_later_variant,
    "pck_kap_pipeline": _pck_kap_pipeline,
}
