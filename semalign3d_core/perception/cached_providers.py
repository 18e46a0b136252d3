"""Providers whose results are kept on disk in half precision.

What comes out is always what the file holds, also when it was computed just now, so that a first run and a second one see
the same numbers. Precomputed providers are files already and are not copied.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from semalign3d_core.geometry.image_grid import SquareGrid
from semalign3d_core.perception.backbones import FeatureBackbone
from semalign3d_core.perception.depth import DepthSource
from semalign3d_core.perception.evidence import DepthMap, FeatureMap, ImageEvidence, ImageInput
from semalign3d_core.perception.masks import Box, MaskSource, Points
from semalign3d_core.perception.stored_features import StoredFeatureMap
from semalign3d_core.runtime.cache import Cache
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.files import sha256_of_arrays, sha256_of_file


class _Cached:
    """What the cached providers share: the wrapped provider, its spelling on the command line and the cache."""

    def __init__(self, provider: Any, spec: str, cache: Cache, **knows: Any):
        self.provider, self.spec, self.cache, self.knows = provider, spec, cache, knows
        self.name = provider.name

    @classmethod
    def wrap(cls, provider: Any, spec: str, cache: Cache, **knows: Any) -> Any:
        """The provider behind the cache; None and precomputed providers as they are.

        knows: what else than the image its results depend on, by name (JSON).
        """
        return provider if provider is None or spec.startswith("precomputed") else cls(provider, spec, cache, **knows)

    def _depends_on(self, image: ImageInput, **more: Any) -> dict[str, Any]:
        known = {"provider": self.name, "spec": self.spec, "image": image_hash(image), "mirrored": image.mirrored, "window": image.window}
        return {**known, "quarters": image.quarters, **self.knows, **more}


class PrecomputedFeatures(FeatureBackbone):
    """Precomputed features in the precision of their files."""

    def __init__(self, provider: Any):
        self.provider, self.name, self.any_image = provider, provider.name, False

    @property
    def channels(self) -> int:  # type: ignore[override]
        """Channels of the stored features."""
        return self.provider.channels

    def extract(self, image: ImageInput) -> StoredFeatureMap:  # type: ignore[override]
        """The :class:`StoredFeatureMap` of an image."""
        return self.provider.stored(image)


class CachedBackbone(_Cached, FeatureBackbone):
    """A backbone behind the cache."""

    def __init__(self, provider: Any, spec: str, cache: Cache, **knows: Any):
        super().__init__(provider, spec, cache, **knows)
        self.close_up, self.any_image, self.classifies = provider.close_up, provider.any_image, provider.classifies

    @classmethod
    def wrap(cls, provider: Any, spec: str, cache: Cache, **knows: Any) -> Any:
        """The backbone behind the cache; a precomputed one reads its own files."""
        return PrecomputedFeatures(provider) if spec.startswith("precomputed") else cls(provider, spec, cache, **knows)

    @property
    def channels(self) -> int:  # type: ignore[override]
        """Channels of the backbone behind the cache."""
        return self.provider.channels

    def extract(self, image: ImageInput) -> StoredFeatureMap:  # type: ignore[override]
        """The :class:`StoredFeatureMap` of an image; raises :class:`InputError` for features that are not finite."""

        def compute() -> tuple[Any, dict[str, torch.Tensor]]:
            found = self.provider.extract(image)
            if not torch.isfinite(found.values).all():
                raise InputError(f"{image.name}: the backbone {self.name} gave NaN or infinite features; check its weights and the image")
            return {"padding": found.grid.padding}, {"features": found.values.half().cpu().contiguous()}

        structure, tensors = self.cache.fetch("features", self._depends_on(image), compute)
        stored = tensors["features"]
        return StoredFeatureMap(stored, SquareGrid(image.height, image.width, stored.shape[-1], structure["padding"], image.window))


class CachedDepth(_Cached, DepthSource):
    """A depth source behind the cache."""

    def estimate(self, image: ImageInput) -> DepthMap | None:
        """The :class:`DepthMap` of an image, or None."""

        def compute() -> tuple[Any, dict[str, torch.Tensor]]:
            found = self.provider.estimate(image)
            return ({"kind": None}, {}) if found is None else ({"kind": found.kind}, {"depth": found.values.half().cpu().contiguous()})

        structure, tensors = self.cache.fetch("depth", self._depends_on(image), compute)
        return None if structure["kind"] is None else DepthMap(tensors["depth"].float(), structure["kind"])


class CachedMasks(_Cached, MaskSource):
    """A mask source behind the cache."""

    def __init__(self, provider: Any, spec: str, cache: Cache, **knows: Any):
        super().__init__(provider, spec, cache, **knows)
        self.reads_features, self.glances, self.any_image = provider.reads_features, provider.glances, provider.any_image

    def segment(self, image: ImageInput, box: Box | None = None, points: Points | None = None) -> torch.Tensor | None:
        """The object's mask (h, w) bool, or None."""
        return self._segmented(image, box, points, lambda: self.provider.segment(image, box=box, points=points))

    def segment_features(
        self, features: FeatureMap, image: ImageInput, box: Box | None = None, points: Points | None = None
    ) -> torch.Tensor | None:
        """As :meth:`segment`, for providers that look at features which are there already."""
        return self._segmented(image, box, points, lambda: self.provider.segment_features(features, image, box=box, points=points))

    def glance(self, image: ImageInput, box: Box | None = None) -> torch.Tensor | None:
        """The quick first mask."""
        return self._segmented(image, box, None, lambda: self.provider.glance(image, box=box), look="glance")

    def search(self, image: ImageInput) -> Box | None:
        """A place to look at."""
        depends_on = self._depends_on(image, look="search")
        place = self.cache.fetch("masks", depends_on, lambda: ({"place": _plain(self.provider.search(image))}, {}))[0]["place"]
        return None if place is None else tuple(place)

    def _segmented(
        self, image: ImageInput, box: Box | None, points: Points | None, segment: Callable[[], torch.Tensor | None], **how: str
    ) -> torch.Tensor | None:
        def compute() -> tuple[Any, dict[str, torch.Tensor]]:
            found = segment()
            return ({"found": False}, {}) if found is None else ({"found": True}, {"mask": _bits(found)})

        prompts = {"box": _plain(box), "points": _plain(points), **how}
        structure, tensors = self.cache.fetch("masks", self._depends_on(image, **prompts), compute)
        if not structure["found"]:
            return None
        bits = np.unpackbits(tensors["mask"].numpy(), count=image.height * image.width)
        return torch.from_numpy(bits.reshape(image.height, image.width).astype(bool))


def image_hash(image: ImageInput) -> str:
    """What an image's content is known by: the hash of its file, or of its pixels where there is no file."""
    if image.record is None:
        return sha256_of_arrays({"rgb": image.rgb})
    return sha256_of_file(image.record.path)


def evidence_digest(evidence: ImageEvidence) -> str:
    """Hash of everything a matcher sees of an image (its features are a :class:`StoredFeatureMap`)."""
    features: Any = evidence.features  # a StoredFeatureMap
    arrays = {
        "features": features.stored.cpu().contiguous().view(torch.uint8).numpy(),
        "grid": np.frombuffer(repr(dataclasses.astuple(features.grid)).encode(), np.uint8),
        "camera": np.concatenate([evidence.camera.focal.numpy(), evidence.camera.principal.numpy(), [evidence.camera.known]]),
    }
    if evidence.mask is not None:
        arrays["mask"] = evidence.mask.cpu().numpy()
    if evidence.depth is not None:
        arrays["depth"] = evidence.depth.values.cpu().numpy()
        arrays["kind"] = np.frombuffer(evidence.depth.kind.encode(), np.uint8)
    return sha256_of_arrays(arrays)


def _bits(mask: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.packbits(mask.cpu().numpy().astype(bool)))


def _plain(values: Any) -> list | None:
    return None if values is None else np.asarray(values, dtype=np.float64).tolist()
