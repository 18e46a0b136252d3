"""What the post-processor is trained on: pairs of images with their raw features, read once and kept on disk."""

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semalign3d_core.datasets.canvas import canvas_keypoints
from semalign3d_core.datasets.records import ImageRecord, PairRecord
from semalign3d_core.geometry.image_grid import CANVAS_SIDE, SquareGrid
from semalign3d_core.learned.geoaware.backbone import raw_features
from semalign3d_core.learned.geoaware.network import OFFICIAL_DIMS
from semalign3d_core.perception import backbones, masks
from semalign3d_core.perception.backbones.fused import FusedBackbone
from semalign3d_core.perception.cached_providers import CachedMasks, image_hash
from semalign3d_core.perception.evidence import FeatureMap, ImageInput, read_image
from semalign3d_core.perception.look import close_up
from semalign3d_core.perception.providers import on_device
from semalign3d_core.runtime.cache import Cache
from semalign3d_core.runtime.code_hash import code_of
from semalign3d_core.runtime.errors import InputError

MEMORY = 1 << 30  # bytes of raw features that a process keeps


class FeatureSource:
    """Raw features of the images of a data set: through the cache, the last ones in memory.

    backbone, segmenter: spellings of providers; of a backbone that looks closely at objects the segmenter says where these are
    cache: folder;  device: where the backbone runs
    """

    def __init__(self, backbone: str, segmenter: str, dataset_root: Path, cache: Path, device: str):
        self.spec, self.cache = backbone, Cache(cache)
        self.backbone = backbones.create(on_device(backbone, backbones.BACKBONES, device), dataset_root)
        found = masks.create(segmenter, dataset_root, None, self.backbone)
        self._code = code_of(self.backbone)
        self.masks = CachedMasks.wrap(found, segmenter, self.cache, features=self.backbone.name, code=code_of(found))
        self._kept: OrderedDict[Any, Any] = OrderedDict()
        self._bytes, self._one = 0, Lock()

    @property
    def dims(self) -> tuple[int, ...]:
        """Widths of the groups of channels: the published four of Stable Diffusion and DINOv2, else one."""
        whole = isinstance(self.backbone, FusedBackbone) and self.backbone.channels == sum(OFFICIAL_DIMS)
        return OFFICIAL_DIMS if whole else (self.backbone.channels,)

    def look(self, record: ImageRecord, mirrored: bool = False) -> FeatureMap:
        """The raw features (C, cells, cells), half precision, of an image or its mirror image; see :func:`raw_features`."""
        key = record.category, record.name, mirrored
        with self._one:
            if key not in self._kept:
                found = self._look(record, mirrored)
                self._kept[key] = found
                self._bytes += found.values.nbytes
                while self._bytes > MEMORY and len(self._kept) > 1:
                    _, oldest = self._kept.popitem(last=False)
                    self._bytes -= oldest.values.nbytes
            self._kept.move_to_end(key)
            return self._kept[key]

    def _look(self, record: ImageRecord, mirrored: bool) -> FeatureMap:
        image = read_image(record.path, record)
        if self.masks is not None and self.backbone.close_up is not None:
            image = close_up(image, self.masks.segment(image), self.backbone)
        image = image.mirror() if mirrored else image
        if self.spec.startswith("precomputed"):  # these are files already
            return self._checked(raw_features(self.backbone, image), image)

        def compute() -> tuple[dict[str, str], dict[str, Tensor]]:
            found = self._checked(raw_features(self.backbone, image), image)
            return {"padding": found.grid.padding}, {"features": found.values.cpu().contiguous()}

        known: dict[str, object] = {"provider": self.backbone.name, "spec": self.spec, "code": self._code}
        known |= {"image": image_hash(image), "mirrored": mirrored, "window": image.window}
        structure, tensors = self.cache.fetch("raw_features", known, compute)
        cells = tensors["features"].shape[-1]
        return FeatureMap(tensors["features"], SquareGrid(image.height, image.width, cells, structure["padding"], image.window))

    def _checked(self, found: FeatureMap, image: ImageInput) -> FeatureMap:
        values = found.values.half()
        if not torch.isfinite(values).all():
            raise InputError(f"{image.name}: features of {self.backbone.name} are not finite in half precision; check its weights")
        return FeatureMap(values, found.grid)


@dataclass(frozen=True)
class Sample:
    """A pair as the training step takes it; the two mirror images stand behind source and target where they are used.

    features:    (2 or 4, C, cells, cells) raw;  keypoints: (2, K, 3) on the canvas;  thresholds: longest box sides in cells, of both
    permutation: (K,) int64 label that each label becomes in the mirror image
    """

    features: Tensor
    keypoints: Tensor
    thresholds: tuple[float, float]
    permutation: Tensor


class PairSamples:
    """The training pairs of a data set, shuffled anew for every epoch.

    kind: ``bbox`` or ``image``, what thresholds are relative to;  mirrored: with the mirror images
    """

    def __init__(self, dataset: Any, source: FeatureSource, split: str, categories: tuple[str, ...], mirrored: bool, seed: int) -> None:
        self.dataset, self.source, self.split, self.mirrored, self.seed = dataset, source, split, mirrored, seed
        names = dataset.pair_names(split)
        self.names = [name for name in names if not categories or name.rpartition(":")[2] in categories]
        if not self.names:
            raise InputError(f"{dataset.root}: split {split!r} has no pairs{' of ' + ', '.join(categories) if categories else ''}")
        self._epoch = -1
        self._order: list[int] = []
        self._reader = ThreadPoolExecutor(1)
        self._ahead: tuple[int, Future[Sample]] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def at(self, number: int, following: int | None = None) -> Sample:
        """The :class:`Sample` number ``number`` of the training, counted over all epochs.

        following: number of the next one, which is read from the disk meanwhile.
        """
        ahead = None if self._ahead is None else self._ahead[1].result()  # also an unwanted one: one reads at a time
        wanted = ahead is not None and self._ahead is not None and self._ahead[0] == number
        sample = ahead if ahead is not None and wanted else self._read(number)
        self._ahead = None if following is None else (following, self._reader.submit(self._read, following))
        return sample

    def _read(self, number: int) -> Sample:
        epoch, place = divmod(number, len(self.names))
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed + epoch)
            self._epoch, self._order = epoch, torch.randperm(len(self.names), generator=generator).tolist()
        return self.of(self.dataset.pair(self.split, self.names[self._order[place]]))

    def of(self, pair: PairRecord) -> Sample:
        """The :class:`Sample` of a pair."""
        sides = pair.source, pair.target
        found = [self.source.look(side) for side in sides]
        values = [f.values for f in found] + ([self.source.look(side, True).values for side in sides] if self.mirrored else [])
        keypoints = np.stack([keypoints_on_canvas(side, f.grid) for side, f in zip(sides, found, strict=True)])
        flip = self.dataset.keypoint_spec(pair.source.category).flip_permutation
        own, other = (box_in_cells(side, f.grid, self.dataset.threshold_kind) for side, f in zip(sides, found, strict=True))
        return Sample(torch.stack(values), torch.from_numpy(keypoints), (own, other), torch.tensor(flip))


def keypoints_on_canvas(record: ImageRecord, grid: SquareGrid) -> np.ndarray:
    """(K, 3) float32 x, y, visible of a record's keypoints on the 840 canvas that ``grid`` covers; those beyond it are not visible.

    On the published canvas as published; on other grids so that cell ``c`` is ``14 c`` to ``14 (c + 1)`` of 60 cells.
    """
    if grid.padding == "canvas" and grid.window is None:
        return canvas_keypoints(record)
    seen = np.isfinite(record.keypoints).all(axis=1, keepdims=True)
    cells = grid.pixel_to_cell(torch.from_numpy(np.nan_to_num(record.keypoints))).numpy()
    positions = (cells + 0.5) * (CANVAS_SIDE / grid.cells)
    seen &= ((positions >= 0) & (positions <= CANVAS_SIDE)).all(axis=1, keepdims=True)
    return (np.concatenate([positions, seen], axis=1) * seen).astype(np.float32)


def box_in_cells(record: ImageRecord, grid: SquareGrid, kind: str) -> float:
    """Longest side of the object's box in cells; of the image where thresholds are relative to that (``kind``), or there is no box.

    The published training on PF-PASCAL takes 840 cells for the latter, which makes its dense targets noise; that is not reproduced.
    """
    if kind == "image" or record.box is None:
        return max(record.height, record.width) / grid.cell_size
    x1, y1, x2, y2 = (float(v) for v in record.box)
    return max(x2 - x1, y2 - y1) / grid.cell_size
