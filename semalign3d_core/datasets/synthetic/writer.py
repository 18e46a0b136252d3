"""Writes a synthetic data set folder in SPair-71k's layout with all sidecars; can be interrupted and resumed.

Every image depends on (seed, category, split, index) and the options alone, never on the order or the number of workers.
Instances of the splits come from disjoint ranges of instance seeds.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from semalign3d_core.datasets.synthetic.image_files import is_written, write_image_files
from semalign3d_core.datasets.synthetic.instances import CATEGORIES, KEYPOINTS, generator
from semalign3d_core.datasets.synthetic.pairs import write_pairs
from semalign3d_core.datasets.synthetic.rendering import RenderConfig, sample_rendering
from semalign3d_core.perception.evidence import DEPTH_KINDS
from semalign3d_core.runtime.config import to_dict
from semalign3d_core.runtime.errors import InputError, choice
from semalign3d_core.runtime.files import read_json, write_json
from semalign3d_core.runtime.processes import in_processes

FOLDERS = ("JPEGImages", "ImageAnnotation", "Segmentation", "Depth", "Truth", "PairAnnotation", "Layout", "keypoints.json")
SPLITS = ("trn", "val", "test")
INSTANCES_PER_SPLIT = 1_000_000
SEEN_PIXELS, SEEN_SHARE, SEEN_KEYPOINTS = 40, 0.35, 2  # an image that shows less of its object is drawn again


@dataclass(frozen=True)
class WriterConfig:
    """What a data set is made of.

    size: longer image side in pixels;  aspect: range of height / width, log-uniform;  seed: of the whole data set
    depth_kind: what ``Depth/`` holds: disparity (monocular-like), depth (true, up to an unknown scale) or metric (metres)
    keypoint_noise: sd of the annotated positions, share of the longer side of the object's box
    """

    size: int = 256
    aspect: tuple = (1.0, 1.0)
    seed: int = 0
    depth_kind: str = "disparity"
    keypoint_noise: float = 0.0
    render: RenderConfig = field(default_factory=RenderConfig)

    def __post_init__(self) -> None:
        if self.depth_kind not in DEPTH_KINDS:
            raise InputError(f"unknown depth kind {self.depth_kind!r}: choose one of {', '.join(DEPTH_KINDS)}")
        if self.keypoint_noise < 0:
            raise InputError(f"keypoint noise must not be negative, found {self.keypoint_noise}")


@dataclass(frozen=True)
class ImageTask:
    """One image to write."""

    category: str
    split: str
    index: int

    @property
    def name(self) -> str:
        """File name without suffix; unique within the category."""
        return f"{self.split}_{self.index:05d}"


def instance_range(split: str) -> tuple[int, int]:
    """(first, one past the last) instance seed of a split; the ranges of the splits do not meet."""
    start = SPLITS.index(split) * INSTANCES_PER_SPLIT
    return start, start + INSTANCES_PER_SPLIT


def draw(task: ImageTask, config: WriterConfig) -> Any:
    """The :class:`Rendering` of one image; images that hardly show their object are drawn again."""
    rng = generator("image", task.category, task.split, task.index, config.seed)
    for _ in range(20):
        low, high = instance_range(task.split)
        instance, view = int(rng.integers(low, high)), int(rng.integers(2**31))
        aspect = np.exp(rng.uniform(*np.log(config.aspect)))
        size = (max(round(config.size * min(aspect, 1.0)), 8), max(round(config.size / max(aspect, 1.0)), 8))
        rendering = sample_rendering(task.category, instance, view, size, config.render)
        seen = rendering.mask.sum()
        if seen >= SEEN_PIXELS and seen > SEEN_SHARE * rendering.amodal_mask.sum() and rendering.visible.sum() >= SEEN_KEYPOINTS:
            return rendering
    raise InputError(f"{task.category} {task.name}: 20 drawings showed too little of the object; lower the occluder and truncation rates")


def write_data_set(
    root: Path,
    categories: tuple[str, ...],
    counts: dict[str, int],
    pairs: int,
    config: WriterConfig,
    workers: int = 1,
    progress: Callable | None = None,
    sidecar: Any = None,
) -> int:
    """Writes (or completes) a data set.

    root: folder;  categories: names;  counts: {split: images per category};  pairs: per category and split
    workers: processes;  progress: called with the number of finished images so far of the total, (done, total)
    sidecar: picklable object that writes further files of an image: ``exists(root, task)`` and ``write(root, task, rendering)``
    Returns the number of images that were rendered now. Raises :class:`InputError` if the folder holds another data set.
    """
    root = Path(root)
    for category in categories:
        choice("synthetic category", category, CATEGORIES)
    _claim(root, config)
    tasks = [ImageTask(c, split, n) for c in categories for split in SPLITS for n in range(counts.get(split, 0))]
    missing = [task for task in tasks if not _finished(root, task, sidecar)]
    done = len(tasks) - len(missing)
    for _ in _finish(root, missing, config, workers, sidecar):
        done += 1
        if progress:
            progress(done, len(tasks))
    write_keypoint_table(root, categories)
    write_pairs(root, categories, counts, pairs, config.seed)
    return len(missing)


def write_keypoint_table(root: Path, categories: Sequence[str]) -> None:
    """``keypoints.json``: names and flip permutations; categories that are already in it stay."""
    path = Path(root) / "keypoints.json"
    table = read_json(path) if path.is_file() else {}
    table |= {c: {"names": list(KEYPOINTS[c].names), "flip_permutation": list(KEYPOINTS[c].flip_permutation)} for c in categories}
    write_json(path, table, ours=True)


def _claim(root: Path, config: WriterConfig) -> None:
    """Writes the options to ``synth.json``; a folder made with other options is refused."""
    path, options = root / "synth.json", {"format": 1, "options": to_dict(config)}
    text = _plain(options)
    if path.is_file():
        if read_json(path) != text:
            raise InputError(f"{path}: this data set was made with other options; choose another output folder or the same options")
    elif any((root / name).exists() for name in FOLDERS):
        raise InputError(f"{root} holds a data set that was not made by this command; choose another output folder")
    else:
        write_json(path, text)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _finished(root: Path, task: ImageTask, sidecar: Any) -> bool:
    return is_written(root, task) and (sidecar is None or sidecar.exists(root, task))


def _finish(root: Path, tasks: Sequence[ImageTask], config: WriterConfig, workers: int, sidecar: Any) -> Iterator[ImageTask]:
    jobs = [(root, task, config, sidecar) for task in tasks]
    return in_processes(_write_image, jobs, workers)


def _write_image(job: tuple[Path, ImageTask, WriterConfig, Any]) -> ImageTask:
    root, task, config, sidecar = job
    rendering = draw(task, config)
    if not is_written(root, task):
        write_image_files(root, task, rendering, config)
    if sidecar is not None:
        sidecar.write(root, task, rendering)
    return task
