"""Pairs of images and their lists, as SPair-71k has them."""

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semalign3d_core.datasets.splitting import other_pairs, pair_annotation, write_layout
from semalign3d_core.datasets.synthetic.instances import generator
from semalign3d_core.runtime.files import read_json, visible, write_json

COMMON_KEYPOINTS = 3  # a pair shares at least that many
SMALL_SHARE = 5  # the small layout holds every fifth pair


def write_pairs(root: Path, categories: Sequence[str], counts: dict[str, int], count: int, seed: int) -> None:
    """Writes ``PairAnnotation`` and ``Layout`` for all splits.

    ``count`` ordered pairs per category and split are drawn without replacement among pairs with enough common keypoints (fewer if
    there are not so many). Pairs of categories that an earlier call wrote stay in the lists.
    """
    root = Path(root)
    for split in ("trn", "val", "test"):
        (root / "PairAnnotation" / split).mkdir(parents=True, exist_ok=True)
        names = other_pairs(root / "Layout" / "large" / f"{split}.txt", categories)
        for category in categories:
            images = [f"{split}_{n:05d}" for n in range(counts.get(split, 0))]
            annotations = {name: read_json(root / "ImageAnnotation" / category / f"{name}.json") for name in images}
            first = len(names)
            for number, (source, target) in enumerate(_draw(annotations, count, generator("pairs", category, split, seed))):
                name = f"{number:06d}-{source}-{target}:{category}"
                names.append(name)
                content = full_pair_annotation(name, number, annotations[source], annotations[target])
                write_json(root / "PairAnnotation" / split / f"{name}.json", content, ours=True)
            _remove_others(root / "PairAnnotation" / split, category, names[first:])
        for layout, kept in (("large", names), ("small", names[::SMALL_SHARE])):
            write_layout(root / "Layout" / layout / f"{split}.txt", kept)


def _remove_others(folder: Path, category: str, names: Collection[str]) -> None:
    """Removes the pairs of an earlier call with other counts: loaders that list the folder must see the same pairs as the layout."""
    for path in visible(folder.glob(f"*:{category}.json")):
        if path.stem not in names:
            path.unlink()


def _draw(annotations: dict[str, Any], count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    names = sorted(annotations)
    seen = {name: {k for k, p in annotations[name]["kps"].items() if p is not None} for name in names}
    legal = [(a, b) for a in names for b in names if a != b and len(seen[a] & seen[b]) >= COMMON_KEYPOINTS]
    return [legal[i] for i in rng.permutation(len(legal))[:count]]


def full_pair_annotation(name: str, number: int, source: dict[str, Any], target: dict[str, Any]) -> dict[str, Any]:
    """SPair-71k's fields of a pair. Variations: 0 easy, 1 medium, 2 hard; truncation and occlusion: 0 none, 1 source, 2 target, 3 both."""
    turn = abs(source["azimuth_id"] - target["azimuth_id"])
    turn = min(turn, 8 - turn)
    return (
        {"pair_id": number}
        | pair_annotation(name, source, target)
        | {
            "src_pose": source["pose"],
            "trg_pose": target["pose"],
            "viewpoint_variation": 0 if turn <= 1 else 1 if turn == 2 else 2,
            "scale_variation": _scale_variation(source["bndbox"], target["bndbox"]),
            "truncation": source["truncated"] + 2 * target["truncated"],
            "occlusion": source["occluded"] + 2 * target["occluded"],
        }
    )


def _scale_variation(first: Sequence[float], second: Sequence[float]) -> int:
    areas = [max(x2 - x1, 1) * max(y2 - y1, 1) for x1, y1, x2, y2 in (first, second)]
    ratio = abs(math.log(areas[0] / areas[1]))
    return 0 if ratio < math.log(2) else 1 if ratio < math.log(4) else 2
