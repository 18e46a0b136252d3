"""Vectors of GeoAware-SC about data sets and metrics."""

import json
import tempfile
from pathlib import Path

import numpy as np
from compare import difference, exact
from published.canvas import annotated_labels, canvas_threshold
from published.metrics import column_flip_permutation, mirror_aware, renumbered_groups

from semalign3d_core.datasets import open_dataset
from semalign3d_core.datasets.ap10k_pairs import PARTS, build_pairs, merge_annotations, split_images, usable_images
from semalign3d_core.datasets.canvas import canvas_keypoints, published_subsample
from semalign3d_core.datasets.pf_pascal import CATEGORIES
from semalign3d_core.datasets.tables import (
    GEOMETRY_GROUPS,
    MIRROR_PAIRS,
    flip_permutation,
    used_labels,
)
from semalign3d_core.geometry.image_grid import canvas_placement, keypoints_to_canvas, patch_index, resize_pad
from semalign3d_core.metrics.aggregate import PckAccumulator, weighted_mean
from semalign3d_core.metrics.geometry_subset import geometry_aware
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


def _ap10k_pairs(data, path):
    fixture = json.loads(path.with_name("ap10k_pairs_fixture.json").read_text())
    merged = merge_annotations([fixture["parts"][part] for part in PARTS])
    tree = usable_images(merged, set(fixture["crowd"]))
    for species in tree.values():
        for name, ids in species.items():
            for part, chosen in split_images(ids).items():
                yield exact(f"split {name} {part}", chosen, data[f"split/{name}/{part}"])
    code = {name: i for i, name in enumerate(fixture["species"])} | {name: 100 + i for i, name in enumerate(fixture["families"])}
    code["all"] = 200
    for name, rows in build_pairs(tree, {key: content["keypoints"][2::3] for key, content in merged.items()}).items():
        rows = sorted(rows, key=lambda row: f"{row[0]:012d}-{row[1]:012d}:{row[2]}.json")
        ours = np.array([(a, b, code[label]) for a, b, label in rows]).reshape(-1, 3)
        yield exact(f"pairs {name}", ours, data[f"pairs/{name}"])


def _loaders(data, path):
    fixture = json.loads(path.with_name("loaders_fixture.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        yield from _spair_loader(data, fixture["spair"], Path(folder) / "SPair-71k")
        yield from _ap10k_loader(data, fixture["ap10k"], Path(folder) / "ap-10k")
        yield from _pascal_loader(data, fixture["pascal"], Path(folder) / "PF-dataset-PASCAL")


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _spair_loader(data, fixture, root):
    (root / "JPEGImages").mkdir(parents=True)
    for stem, content in fixture["images"].items():
        _write(root / "ImageAnnotation" / content["category"] / f"{stem}.json", json.dumps(content))
    for name, content in fixture["pairs"].items():
        _write(root / "PairAnnotation" / "test" / name, json.dumps(content))
    _write(root / "Layout" / "large" / "test.txt", "\n".join(sorted(name.removesuffix(".json") for name in fixture["pairs"])))
    dataset = open_dataset(root)
    pairs = list(dataset.pairs("test"))
    yield from _canvas(data, "spair", pairs, canvas_keypoints)
    chosen = published_subsample(dataset.pair_names("test"), len(data["spair_subsample6_thresholds"]))
    thresholds = [canvas_threshold(dataset.pair("test", name).target) for name in chosen]
    yield difference("spair subsample", thresholds, data["spair_subsample6_thresholds"], atol=1e-3, rtol=1e-6)


def _ap10k_loader(data, fixture, root):
    first = next(iter(fixture["pairs"].values()))["src_json_path"]
    folder = Path(*Path(first).parts[Path(first).parts.index("ImageAnnotation") : -1])
    (root / "JPEGImages").mkdir(parents=True)
    for stem, content in fixture["images"].items():
        _write(root / folder / f"{stem}.json", json.dumps(content))
    for name, content in fixture["pairs"].items():
        _write(root / "PairAnnotation" / "test" / name, json.dumps(content))

    def published(record):
        return canvas_keypoints(record, np.array(record.attributes["keypoints"][2::3]) / 2)

    yield from _canvas(data, "ap10k", list(open_dataset(root).pairs("test")), published)


def _pascal_loader(data, fixture, root):
    from PIL import Image
    from scipy.io import savemat

    category = sorted({int(row.split(",")[2]) for row in fixture["test_csv"][1:]})
    names = [CATEGORIES[c - 1] for c in category]
    (root / "JPEGImages").mkdir(parents=True)
    for i, (file, size) in enumerate(sorted(fixture["image_sizes_wh"].items())):
        Image.new("RGB", size).save(root / "JPEGImages" / file)
        (root / "Annotations" / names[0]).mkdir(parents=True, exist_ok=True)
        savemat(root / "Annotations" / names[0] / f"{Path(file).stem}.mat", {"kps": data[f"pascal_mat_kps_{i}"].astype(np.float64)})
    for split in ("test", "train"):
        _write(root / f"{split}_pairs_pf_pascal.csv", "\n".join(fixture[f"{split}_csv"]) + "\n")
    dataset = open_dataset(root)
    for name, split in (("test", "test"), ("train", "trn")):
        keypoints = _interleaved(list(dataset.pairs(split)), canvas_keypoints)
        used = annotated_labels(keypoints)
        yield exact(f"pascal {name} used", used, data[f"pascal_used_{name}"])
        yield difference(f"pascal {name}", keypoints[:, used], data[f"pascal_kps_{name}"], atol=1e-3, rtol=1e-6)


def _interleaved(pairs, read):
    return np.stack([read(record) for pair in pairs for record in (pair.source, pair.target)])


def _canvas(data, prefix, pairs, read):
    keypoints = _interleaved(pairs, read)
    used = annotated_labels(keypoints)
    yield exact(f"{prefix} used", used, data[f"{prefix}_used"])
    yield difference(f"{prefix} keypoints", keypoints[:, used], data[f"{prefix}_kps"], atol=1e-3, rtol=1e-6)
    test = [canvas_threshold(pair.target) for pair in pairs]
    trn = [canvas_threshold(record) for pair in pairs for record in (pair.source, pair.target)]
    yield difference(f"{prefix} thresholds test", test, data[f"{prefix}_thresholds_test"], atol=1e-3, rtol=1e-6)
    yield difference(f"{prefix} thresholds trn", trn, data[f"{prefix}_thresholds_trn"], atol=1e-3, rtol=1e-6)


CHECKS = {
    "geo_subset": _geo_subset,
    "flip": _flip,
    "preprocess": _preprocess,
    "pck": _pck,
    "ap10k_pairs": _ap10k_pairs,
    "loaders": _loaders,
}
