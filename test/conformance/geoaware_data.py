"""Vectors of GeoAware-SC about data sets and metrics."""

import json

import numpy as np
from compare import difference, exact

from semalign3d_core.datasets.tables import (
    GEOMETRY_GROUPS,
    MIRROR_PAIRS,
    column_flip_permutation,
    flip_permutation,
    used_labels,
)
from semalign3d_core.image_grid import canvas_placement, keypoints_to_canvas, patch_index, resize_pad
from semalign3d_core.metrics.aggregate import PckAccumulator, weighted_mean
from semalign3d_core.metrics.geometry_subset import geometry_aware, mirror_aware, renumbered_groups
from semalign3d_core.metrics.pck import pck_correct

SIDE = 840
CLOSE = {"atol": 1e-6, "rtol": 0}


def _prefixes(data, name):
    return [key.removesuffix(f"/{name}") for key in data if key.endswith(f"/{name}")]


def _tables(path):
    """The shipped tables against the JSON beside the vectors, if it is there."""
    file = path.with_name("keypoint_tables.json")
    if not file.is_file():
        return
    tables = json.loads(file.read_text())
    for category, used in tables["used_raw_ids"].items():
        yield exact(f"{category} used", used_labels(category), used)
        for name, ours in (("geometry_groups_raw", GEOMETRY_GROUPS), ("flip_pairs_raw", MIRROR_PAIRS)):
            same = {frozenset(g) for g in ours[category]} == {frozenset(g) for g in tables[name][category]}
            yield exact(f"{category} {name}", same, True)


def _geo_subset(data, path):
    for category in _prefixes(data, "geo_mask"):
        source, target = data[f"{category}/src_vis"], data[f"{category}/trg_vis"]
        yield exact(f"{category} geo", geometry_aware(GEOMETRY_GROUPS[category], source, target), data[f"{category}/geo_mask"])
        if f"{category}/flip_mask" in data:
            # the reference applies its evaluation table, which is in column numbering, to raw labels (they differ for bus)
            columns = column_flip_permutation(category)
            flip = [*columns, *range(len(columns), source.shape[1])]
            yield exact(f"{category} mutual", source & target, data[f"{category}/mutual_mask"])
            yield exact(f"{category} flip", mirror_aware(flip, source, target), data[f"{category}/flip_mask"])
    yield from _tables(path)


def _flip(data, path):
    for prefix in _prefixes(data, "perm"):
        table, category = prefix.split("/")
        permutation = column_flip_permutation if table == "eval" else flip_permutation
        perm, keypoints = permutation(category), data[f"{prefix}/kps"]
        yield exact(f"{prefix} perm", perm, data[f"{prefix}/perm"])
        yield exact(f"{prefix} perm_vis", permutation(category, visible=data[f"{prefix}/vis"]), data[f"{prefix}/perm_vis"])
        # the published canvas is mirrored as a continuous plane: x -> 840 - x
        mirrored = np.stack([SIDE - keypoints[:, 0], keypoints[:, 1], keypoints[:, 2]], axis=1)[perm]
        yield difference(f"{prefix} keypoints", mirrored, data[f"{prefix}/kps_flipped"], atol=1e-4, rtol=0)
    yield from _tables(path)


def _preprocess(data, path):
    for i, (width, height, side) in enumerate(data["size_wh_target"].tolist()):
        scale, offset = canvas_placement(width, height, side)
        moved = keypoints_to_canvas(data["kps_in"][i], width, height, side)
        yield difference(f"keypoints {i}", moved, data["kps_out"][i], atol=1e-3, rtol=1e-5)
        yield exact(f"offset {i}", offset, data["offset_xy"][i])
        yield difference(f"scale {i}", scale, data["scale"][i], atol=1e-5, rtol=1e-5)
    yield exact("patch_idx", patch_index(data["patch_kps"]), data["patch_idx"])
    for image in _prefixes({f"{k.removesuffix('_in')}/in": None for k in data if k.startswith("image") and k.endswith("_in")}, "in"):
        for fill in ("zero", "edge"):
            expected = data[f"{image}_out_{fill}"]
            canvas = resize_pad(data[f"{image}_in"], expected.shape[0], fill)
            yield difference(f"{image} {fill}", canvas, expected, atol=2, rtol=0)  # LANCZOS differs between versions of Pillow


def _pck(data, path):
    for prefix in _prefixes(data, "pred"):
        yield from _pck_of_category(data, prefix)
    if "spair_overall_per_image" in data:
        names = [p for p in _prefixes(data, "pred") if p.startswith("spair_")]
        for kind, count in (("per_image", "num_pairs"), ("per_point", "num_points")):
            mean = weighted_mean([data[f"{n}/{kind}"] for n in names], [data[f"{n}/{count}"] for n in names])
            yield difference(f"overall {kind}", mean, data[f"spair_overall_{kind}"], **CLOSE)


def _pck_of_category(data, prefix):
    used, keypoints, alphas = data[f"{prefix}/used_ids"], data[f"{prefix}/kps_all"], data[f"{prefix}/alphas"].astype(np.float64)
    source, target = keypoints[0::2], keypoints[1::2]
    pred = np.zeros((len(source), 30, 2), np.float32)
    pred[:, used] = data[f"{prefix}/pred"]
    yield difference(f"{prefix} export", pred, data[f"{prefix}/pred_export_30"], **CLOSE)
    pred = pred[:, : source.shape[1]]
    seen_source, seen_target = source[..., 2] > 0, target[..., 2] > 0
    common = seen_source & seen_target
    correct = pck_correct(pred, target[..., :2], data[f"{prefix}/thresholds"], alphas)
    standard = _summary(correct, common, alphas)
    suffixes = [("", standard)] + ([("std_", standard)] if f"{prefix}/std_per_image_rawid" in data else [])
    if f"{prefix}/geo_per_image_rawid" in data:
        groups = GEOMETRY_GROUPS[prefix.partition("_")[2]]
        suffixes.append(("geo_", _summary(correct, geometry_aware(groups, seen_source, seen_target), alphas)))
        renumbered = geometry_aware(renumbered_groups(groups, used), seen_source[:, used], seen_target[:, used])
        yield _live_evaluator(data, prefix, correct[:, used], common[:, used], renumbered)
    for start, scores in suffixes:
        end = "_rawid" if start else ""
        for name, value in scores.items():
            yield difference(f"{prefix} {start}{name}", value, data[f"{prefix}/{start}{name}{end}"], **CLOSE)


def _live_evaluator(data, prefix, correct, common, subset):
    """The reference's per-point numbers of the subset on its renumbered groups."""
    value = [subset.any(1).mean(), subset.sum() / common.sum(), *correct[subset].mean(axis=0), subset.sum()]
    return difference(f"{prefix} geo_renumbered", value, data[f"{prefix}/geo_renumbered"], **CLOSE)


def _summary(correct, subset, alphas):
    accumulator = PckAccumulator(alphas)
    for c, m in zip(correct, subset, strict=True):
        accumulator.add("all", c[m])
    result = accumulator.category_summary("all")
    scores = {name: [v[name] / 100 for v in result["pck"].values()] for name in ("per_point", "per_image")}
    return scores | {"num_points": result["points"], "num_pairs": result["pairs"]}


CHECKS = {"geo_subset": _geo_subset, "flip": _flip, "preprocess": _preprocess, "pck": _pck}
