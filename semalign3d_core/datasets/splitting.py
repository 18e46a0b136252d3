"""Splits and pairs of an imported category, in SPair-71k's files, so that a model can be built from one part and measured on the other."""

import random
from collections.abc import Collection
from pathlib import Path
from typing import Any

from semalign3d_core.runtime.files import read_json, visible, write_json, write_text

SPLITS = ("trn", "test")
COMMON_KEYPOINTS = 1  # a pair shares at least that many


def write_splits(root: Path, category: str, test_share: float, pairs: int) -> dict[str, tuple[int, int]]:
    """Draws test images of a category and writes ``PairAnnotation`` and ``Layout``: {split: (images, pairs)}.

    test_share: of the images, drawn by their names; 0 writes nothing;  pairs: at most so many ordered pairs per split
    Pairs of other categories stay in the lists; those of an earlier import of this one are replaced.
    """
    root = Path(root)
    annotations = {path.stem: read_json(path) for path in visible((root / "ImageAnnotation" / category).glob("*.json"))}
    for split in SPLITS:
        _remove_split(root, category, split)
    if not test_share or len(annotations) < 4:
        return {}
    names = sorted(annotations)
    random.Random(f"0 {category}").shuffle(names)
    count = min(max(round(test_share * len(names)), 2), len(names) - 2)
    found = {}
    for split, images in zip(SPLITS, (names[count:], names[:count]), strict=True):
        found[split] = len(images), _write_split(root, category, split, {name: annotations[name] for name in sorted(images)}, pairs)
    return found


def _write_split(root: Path, category: str, split: str, annotations: dict[str, Any], most: int) -> int:
    legal = [
        (source, target) for source in annotations for target in annotations
        if source != target and len(common_keypoints(annotations[source], annotations[target])) >= COMMON_KEYPOINTS
    ]  # fmt: skip
    random.Random(f"0 {category} {split}").shuffle(legal)
    chosen = sorted(legal[:most])
    folder, layout = root / "PairAnnotation" / split, root / "Layout" / "large" / f"{split}.txt"
    names = []
    for number, (source, target) in enumerate(chosen):
        names.append(f"{number:06d}-{source}-{target}:{category}")
        write_json(folder / f"{names[-1]}.json", pair_annotation(names[-1], annotations[source], annotations[target]), ours=True)
    write_layout(layout, [*other_pairs(layout, [category]), *names])
    return len(names)


def _remove_split(root: Path, category: str, split: str) -> None:
    """Removes the pairs of an earlier import, which may name images that are gone."""
    for path in (root / "PairAnnotation" / split).glob(f"*:{category}.json"):
        path.unlink()
    layout = root / "Layout" / "large" / f"{split}.txt"
    if layout.is_file():
        others = other_pairs(layout, [category])
        if others:
            write_layout(layout, others)
        else:
            layout.unlink()  # a data set without splits has no list


def other_pairs(layout: Path, categories: Collection[str]) -> list[str]:
    """Names of the pairs of other categories that a list holds."""
    known = layout.read_text(encoding="utf-8").split("\n") if layout.is_file() else []
    return [name for name in known if name and name.rpartition(":")[2] not in categories]


def write_layout(layout: Path, names: list[str]) -> None:
    """Writes a list of pairs."""
    write_text(layout, "".join(f"{name}\n" for name in names), ours=True)


def common_keypoints(source: dict[str, Any], target: dict[str, Any]) -> list[str]:
    """Labels of the keypoints that are annotated in both annotations of images."""
    return [k for k, point in source["kps"].items() if point is not None and target["kps"].get(k) is not None]


def pair_annotation(name: str, source: dict[str, Any], target: dict[str, Any]) -> dict[str, Any]:
    """SPair-71k's fields of a pair, as far as annotations of any two images give them."""
    common = common_keypoints(source, target)
    content: dict[str, Any] = {"filename": name, "category": source["category"], "kps_ids": common, "mirror": 0}
    for side, image in (("src", source), ("trg", target)):
        content |= {
            f"{side}_imname": image["filename"],
            f"{side}_imsize": [image["image_width"], image["image_height"], 3],
            f"{side}_bndbox": image["bndbox"],
            f"{side}_kps": [image["kps"][k] for k in common],
        }
    return content
