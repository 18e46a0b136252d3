"""The images of one process: what providers and the matcher make of each, through the cache, the last ones in memory."""

import dataclasses
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from semalign3d_core.category.storage import check_backbone, load_model, model_hash
from semalign3d_core.datasets.records import ImageRecord
from semalign3d_core.evaluation.run.methods import model_of
from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.geometry.image_grid import mirror_image
from semalign3d_core.perception import backbones, depth, masks
from semalign3d_core.perception.cached_providers import CachedBackbone, CachedDepth, CachedMasks, evidence_digest, image_hash
from semalign3d_core.perception.evidence import ImageEvidence, read_image
from semalign3d_core.perception.look import TYPICAL_FOCAL, look
from semalign3d_core.perception.providers import on_device, takes
from semalign3d_core.perception.stored_features import StoredFeatureMap
from semalign3d_core.runtime.code_hash import code_of
from semalign3d_core.runtime.errors import FileFormatError
from semalign3d_core.runtime.packing import pack, unpack

IMAGES_IN_MEMORY = 30  # of 5.5 MB each with 60 x 60 cells of 768 channels; SPair-71k has at most 30 test images of a category


@dataclass(frozen=True)
class SeenImage:
    """One image, ready for the pairs that it is part of.

    features: :class:`StoredFeatureMap`;  seen: what the matcher is given, its own preparation of the image or the evidence
    mirrored: :class:`ImageEvidence` of the mirror image for matchers that use it, else None
    turned:   those of the image turned by the ``quarters`` of the matcher
    digest:   hash of everything that was seen
    """

    features: StoredFeatureMap
    seen: Any  # each matcher prepares images its own way
    mirrored: ImageEvidence | None
    digest: str
    turned: tuple = ()


class ImageStore:
    """Looks at images, each once: whatever is computed goes through the cache, and the last images stay in memory."""

    def __init__(self, config, cache, device, matcher):
        """matcher: function(category) -> (matcher, description of all that its preparation of an image depends on)."""
        self.config, self.cache, self.device, self.matcher = config, cache, device, matcher
        backbone = backbones.create(on_device(config.backbone, backbones.BACKBONES, device), config.dataset)
        self._backbone_code = code_of(backbone)
        self.backbone = CachedBackbone.wrap(backbone, config.backbone, cache, code=self._backbone_code)
        source = depth.create(on_device(config.depth, depth.DEPTHS, device), config.dataset)
        self.depth = CachedDepth.wrap(source, config.depth, cache, code=code_of(source))
        self._masks, self._images = {}, OrderedDict()

    def image(self, category: str, record: ImageRecord) -> SeenImage:
        """The :class:`SeenImage` of a record, for the pairs of a category."""
        key = category, record.category, record.name
        if key not in self._images:
            while len(self._images) >= IMAGES_IN_MEMORY:
                self._images.popitem(last=False)
            self._images[key] = self._look(category, record)
        self._images.move_to_end(key)
        return self._images[key]

    def masks(self, category: str) -> Any:
        """The mask source; one that knows the object looks for that of a category."""
        if category not in self._masks:
            spec, model = on_device(self.config.masks, masks.MASKS, self.device), None
            if takes(spec, masks.MASKS, "model"):
                model = model_of(self.config, category)
            provider = masks.create(spec, self.config.dataset, model, self.backbone, load_model)
            if provider is not None and provider.compares_with is not None:
                check_backbone(provider.compares_with, self.backbone.name)
            knows = {"features": self.backbone.name, "code": code_of(provider), "features code": self._backbone_code}
            knows["own features"] = "" if provider is None else provider.own_features
            knows["model"] = "" if model is None else model_hash(model)
            self._masks = {category: CachedMasks.wrap(provider, spec, self.cache, **knows)}
        return self._masks[category]

    def _look(self, category, record):
        image = read_image(record.path, record)
        if (image.height, image.width) != (record.height, record.width):
            raise FileFormatError(
                f"{record.path} has {image.width} x {image.height} pixels, its annotation says {record.width} x {record.height}; "
                "restore the file or the annotation"
            )
        image = dataclasses.replace(image, name=f"{record.category}/{record.name}")
        matcher, description = self.matcher(category)
        evidence = look(image, self.backbone, self.depth, self.masks(category))  # no annotation of the image: it may be a target
        evidence = self._on_device(evidence, evidence.features)
        digest, shown = evidence_digest(evidence), evidence
        if matcher.uses_picture:
            digest = hashlib.sha256((digest + image_hash(image)).encode()).hexdigest()
            shown = dataclasses.replace(evidence, image=image.rgb)
        seen = self._prepared(matcher, shown, _prepare_depends_on(matcher, digest, description)) if matcher.prepares else evidence
        if not matcher.uses_mirror:
            return SeenImage(evidence.features, seen, None, digest)
        looked_at = dataclasses.replace(image, window=evidence.features.grid.window)
        mirrored = self._on_device(mirror(evidence), self.backbone.extract(looked_at.mirror()))
        turned = tuple(self._turned(evidence, looked_at.turn(quarters), quarters) for quarters in matcher.quarters)
        every = hashlib.sha256((digest + "".join(map(evidence_digest, (mirrored, *turned)))).encode()).hexdigest()
        return SeenImage(evidence.features, seen, mirrored, every, turned)

    def _prepared(self, matcher, evidence, depends_on):
        known = _known(evidence)
        structure, tensors = self.cache.fetch("prepared", depends_on, lambda: pack(matcher.prepare(evidence), known))
        return unpack(structure, tensors, known, self.device)

    def _turned(self, evidence, image, quarters):
        """Evidence of the turned image: its own features, the mask turned, no depth."""
        mask = None if evidence.mask is None else evidence.mask.rot90(quarters)
        camera = PinholeCamera.centred(TYPICAL_FOCAL, image.height, image.width)
        return ImageEvidence(self.backbone.extract(image).to(self.device), camera, mask, name=evidence.name)

    def _on_device(self, evidence, features):
        """The evidence without its picture, with ``features``, on the device."""
        mask = None if evidence.mask is None else evidence.mask.to(self.device)
        found = evidence.depth
        if found is not None:
            found = dataclasses.replace(found, values=found.values.to(self.device))
        return dataclasses.replace(evidence, image=None, features=features.to(self.device), mask=mask, depth=found)


def mirror(evidence: ImageEvidence) -> Any:
    """Mask and depth of the mirror image, as published for masks: those of the image, mirrored; its features have to be extracted."""
    mask = None if evidence.mask is None else mirror_image(evidence.mask)
    return dataclasses.replace(evidence, mask=mask, depth=None if evidence.depth is None else evidence.depth.mirror())


def _prepare_depends_on(matcher, digest, description):
    """What the preparation of an image depends on: not on the name of the method, so that both transfers share an alignment."""
    rest = {name: value for name, value in description.items() if name not in ("method", "settings")}
    return {"evidence": digest, "settings": matcher.prepare_settings, **rest}


def _known(evidence):
    """The parts of the evidence that prepared values may refer to."""
    return {
        "evidence": evidence,
        "features": evidence.features,
        "camera": evidence.camera,
        "mask": evidence.mask,
        "depth": evidence.depth,
        "depth.values": None if evidence.depth is None else evidence.depth.values,
    }
