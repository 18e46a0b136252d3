"""The AP-10K correspondence benchmark (GeoAware-SC, CVPR 2024): which images it has, how they are split and paired.

The published construction follows the order in which a file system lists folders, so the published lists cannot be had again from
it; here folders and images are sorted, which gives the same benchmark everywhere. Random draws follow the published order.
"""

import itertools
import random
from typing import Any

SEED = 42
PARTS = ("train", "test", "val")  # order of annotation files and of draws
Lists = dict[str, dict[str, dict[str, list[int]]]]  # family -> species -> part -> ids of its images
Visible = dict[int, list[int]]  # id -> visibility flags 0..2 of the keypoints
PairSets = dict[str, list[tuple[int, int, str]]]  # set -> (source id, target id, label) of each pair
MIN_COMMON = 3  # common keypoints of a pair, and labelled ones of an image


def merge_annotations(parts: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """{image id: one merged annotation} of the COCO-like contents of the three files, in the order train, test, val.

    Only the first annotation of an image counts. The merged dictionary has the annotation's and the image's entries (of
    equal ones the image's) and the category's ``name`` and ``supercategory``.
    """
    merged = {}
    for content in parts:
        images = {image["id"]: image for image in content["images"]}
        kinds = {kind["id"]: {"name": kind["name"], "supercategory": kind["supercategory"]} for kind in content["categories"]}
        for annotation in content["annotations"]:
            key = annotation["image_id"]
            if key not in merged:
                merged[key] = annotation | images[key] | kinds[annotation["category_id"]]
    return merged


def usable_images(merged: dict[int, dict[str, Any]], crowd: set[str]) -> dict[str, dict[str, list[int]]]:
    """{family: {species: [image ids]}} in sorted order, without images in ``crowd`` (12-digit names) and with fewer than 3 keypoints."""
    tree: dict[str, dict[str, list[int]]] = {}
    for key in sorted(merged):
        content = merged[key]
        species = tree.setdefault(content["supercategory"], {}).setdefault(content["name"], [])
        if f"{key:012d}" not in crowd and content["num_keypoints"] >= MIN_COMMON:
            species.append(key)
    return {family: dict(sorted(tree[family].items())) for family in sorted(tree)}


def split_images(ids: list[int]) -> dict[str, list[int]]:
    """{part: ids} of one species: test = last 30, val = the 20 before, train = the rest."""
    rest, test = ids[: max(0, len(ids) - 30)], ids[max(0, len(ids) - 30) :]
    return {"train": rest[: max(0, len(rest) - 20)], "val": rest[max(0, len(rest) - 20) :], "test": test}


def build_pairs(tree: dict[str, dict[str, list[int]]], visible: Visible) -> PairSets:
    """All pairs of the benchmark: {set: [(source id, target id, label)]} with label = species, family or ``all``.

    tree: {family: {species: [ids]}};  visible: {id: visibility flags 0..2 of the keypoints}.
    Sets: trn, val, test and, for the last two, ``_cross_species`` and ``_cross_family``.
    """
    lists = {family: {name: split_images(ids) for name, ids in species.items()} for family, species in tree.items()}
    return _intra_species(lists, visible) | _cross_species(lists, visible) | _cross_family(lists, visible)


def _intra_species(lists: Lists, visible: Visible) -> PairSets:
    rng = random.Random(SEED)
    sets: PairSets = {}
    for part in PARTS:
        pairs = sets["trn" if part == "train" else part] = []
        for species in lists.values():
            for name, ids in species.items():
                shuffled = list(ids[part])
                rng.shuffle(shuffled)
                good = [pair for pair in itertools.combinations(shuffled, 2) if _admissible(*pair, visible)]
                most = min(50 * len(shuffled), len(good)) if part == "train" else len(good)
                pairs += [(*pair, name) for pair in rng.sample(good, most)]
    return sets


def _cross_species(lists: Lists, visible: Visible) -> PairSets:
    rng = random.Random(SEED)
    sets: PairSets = {}
    for part, most in (("val", 400), ("test", 900)):
        pairs = sets[f"{part}_cross_species"] = []
        for family, species in lists.items():
            if len(species) < 2:
                continue
            good = []
            for first, second in itertools.combinations(species.values(), 2):
                for pair in itertools.product(first[part], second[part]):
                    rng.random()  # the published code draws here, to no effect; the draw moves the generator on
                    if _admissible(*pair, visible):
                        good.append(pair)
            pairs += [(*pair, family) for pair in rng.sample(good, min(most, len(good)))]
    return sets


def _cross_family(lists: Lists, visible: Visible) -> PairSets:
    rng = random.Random(SEED)
    sets: PairSets = {}
    for part, most in (("test", 30), ("val", 20)):
        images = [[key for ids in species.values() for key in ids[part]] for species in lists.values()]
        pairs = sets[f"{part}_cross_family"] = []
        for first, second in itertools.combinations(images, 2):
            good = [pair for pair in itertools.product(first, second) if _admissible(*pair, visible)]
            pairs += [(*pair, "all") for pair in rng.sample(good, min(most, len(good)))]
    return sets


def _admissible(a: int, b: int, visible: Visible) -> bool:
    """Enough keypoints in common; half-visible ones (flag 1) count half."""
    return sum(u * v for u, v in zip(visible[a], visible[b], strict=True)) / 4 >= MIN_COMMON
