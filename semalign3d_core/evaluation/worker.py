"""What one process does: prepares images and matches the pairs of a source image, everything through the cache.

A worker is made from the configuration alone, so that any process of any engine can make its own; see :func:`run_item`.
"""

import dataclasses
import functools
import inspect
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
import torch

from semalign3d_core import backbones, depth, masks
from semalign3d_core.category.storage import find_model, load_model, model_hash
from semalign3d_core.errors import FileFormatError, SemAlign3DError
from semalign3d_core.evaluation.cache import Cache
from semalign3d_core.evaluation.kap import pair_samples
from semalign3d_core.evaluation.methods import code_hash, make_matcher
from semalign3d_core.evaluation.packing import pack, unpack
from semalign3d_core.evaluation.providers import CachedBackbone, CachedDepth, CachedMasks, evidence_digest
from semalign3d_core.evidence import gather
from semalign3d_core.files import sha256_of_arrays
from semalign3d_core.images import read_image
from semalign3d_core.providers import parse_spec

IMAGES_IN_MEMORY = 30  # of 11 MB each with 768 channels; SPair-71k has at most 30 test images of a category


@dataclass(frozen=True)
class Query:
    """One pair of a work item: its name, the target's record, the points (Q, 2) to carry over, and the reference length for KAP."""

    name: str
    target: object
    points: np.ndarray
    unit: float = float("nan")


@dataclass(frozen=True)
class WorkItem:
    """One image (``queries`` empty: prepare it) or all pairs of one source image (match them).

    category: that of the pairs, whose model is used; of cross-species pairs it is not the image's own
    """

    category: str
    record: object
    queries: tuple = ()

    def __str__(self):
        return f"{self.record.category}/{self.record.name}"


@dataclass(frozen=True)
class ItemResult:
    """What became of a work item.

    failures: {what: reason}; what is "" for the image itself, else the name of a pair
    points:   {pair: (Q, 2) float32 pixels of the target};  kap: {pair: its samples for KAP}, if asked for
    digest:   hash of the image's evidence; counts: cache statistics
    """

    failures: dict = field(default_factory=dict)
    points: dict = field(default_factory=dict)
    digest: str = ""
    counts: dict = field(default_factory=dict)
    kap: dict = field(default_factory=dict)


def run_item(config, run, item):
    """Prepares or matches one :class:`WorkItem`; bad input becomes a failure in the :class:`ItemResult`.

    run: names the evaluation, so that a process keeps nothing (models, images) from one evaluation to the next.
    """
    return _worker(config, run).run(item)


@functools.lru_cache(maxsize=1)
def _worker(config, run):
    return Worker(config)


class Worker:
    """Providers, matchers and recently used images of one process."""

    def __init__(self, config):
        self.config = config
        self.device = resolve_device(config.device)
        self.cache = Cache(config.cache_folder)
        spec = on_device(config.backbone, backbones.BACKBONES, self.device)
        self.backbone = CachedBackbone.wrap(backbones.create(spec, config.dataset), config.backbone, self.cache)
        spec = on_device(config.depth, depth.DEPTHS, self.device)
        self.depth = CachedDepth.wrap(depth.create(spec, config.dataset), config.depth, self.cache)
        self._matchers, self._masks, self._images = {}, {}, OrderedDict()
        torch.manual_seed(config.seed)

    def run(self, item):
        """The :class:`ItemResult` of one item."""
        self.cache.counts.clear()
        try:
            if item.queries:
                points, failures, kap = self._match(item)
                return ItemResult(failures, points, counts=dict(self.cache.counts), kap=kap)
            return ItemResult(digest=self.image(item.category, item.record)[2], counts=dict(self.cache.counts))
        except SemAlign3DError as error:
            return ItemResult({"": str(error)}, counts=dict(self.cache.counts))

    def matcher(self, category):
        """The (matcher, description) of a category."""
        if category not in self._matchers:
            self._matchers = {category: make_matcher(self.config, category, self.device)}  # work comes category by category
        return self._matchers[category]

    def masks(self, category):
        """The mask source; one that knows the object looks for that of a category."""
        if category not in self._masks:
            spec, model = on_device(self.config.masks, masks.MASKS, self.device), None
            if takes(spec, masks.MASKS, "model"):
                model = load_model(find_model(category, self.config.models))
            provider = masks.create(spec, self.config.dataset, model, self.backbone)
            knows = {} if model is None else {"model": model_hash(model), "features": self.config.backbone, "code": code_hash()}
            self._masks = {category: CachedMasks.wrap(provider, spec, self.cache, **knows)}
        return self._masks[category]

    def image(self, category, record):
        """(evidence, what the matcher accepts in its place, digest) of an image; the last few are kept in memory."""
        key = category, record.category, record.name
        if key not in self._images:
            self._images[key] = self._load(category, record)
            while len(self._images) > IMAGES_IN_MEMORY:
                self._images.popitem(last=False)
        self._images.move_to_end(key)
        return self._images[key]

    def _load(self, category, record):
        image = read_image(record.path, record)
        if (image.height, image.width) != (record.height, record.width):
            raise FileFormatError(
                f"{record.path} has {image.width} x {image.height} pixels, its annotation says {record.width} x {record.height}; "
                "restore the file or the annotation"
            )
        image = dataclasses.replace(image, name=f"{record.category}/{record.name}")
        evidence = gather(image, self.backbone, self.depth, self.masks(category))  # no annotation of the image: it may be a target
        digest = evidence_digest(evidence)
        evidence = _on_device(dataclasses.replace(evidence, image=None), self.device)
        return evidence, self._prepared(category, evidence, digest), digest

    def _prepared(self, category, evidence, digest):
        matcher, description = self.matcher(category)
        if not hasattr(matcher, "prepare"):
            return evidence
        known = _known(evidence)
        structure, tensors = self.cache.fetch(
            "prepared", {"evidence": digest, **description}, lambda: pack(matcher.prepare(evidence), known)
        )
        return unpack(structure, tensors, known, self.device)

    def _match(self, item):
        """({pair: points}, {pair: reason}, {pair: samples for KAP}) of all pairs of one source image; points are one entry of the cache."""
        source, targets, failures = self.image(item.category, item.record), {}, {}
        for query in item.queries:
            try:
                targets[query.name] = self.image(item.category, query.target)
            except SemAlign3DError as error:
                failures[query.name] = str(error)
        kap = self._kap(item, source, targets)
        queries = [q for q in item.queries if q.name in targets and len(q.points)]
        matcher, description = self.matcher(item.category)
        depends_on = {
            "source": source[2],
            "targets": [targets[q.name][2] for q in queries],
            "points": sha256_of_arrays({f"{i}": q.points for i, q in enumerate(queries)}),
            **description,
        }
        structure, tensors = self.cache.fetch("matches", depends_on, lambda: self._matched(matcher, source, targets, queries))
        return {q.name: tensors[f"p{i}"].numpy() for i, q in enumerate(queries)}, failures, kap

    def _kap(self, item, source, targets):
        if self.config.kap == "none":
            return {}
        queries, features = [q for q in item.queries if q.name in targets], source[0].features
        return {q.name: pair_samples(self.config, features, targets[q.name][0].features, (item.record, q.target), q.unit) for q in queries}

    def _matched(self, matcher, source, targets, queries):
        with torch.no_grad():
            found = [matcher.match(source[1], targets[q.name][1], torch.from_numpy(q.points).to(self.device)).points for q in queries]
        return {}, {f"p{i}": points.detach().float().cpu().contiguous() for i, points in enumerate(found)}


def resolve_device(name):
    """``auto`` is CUDA where there is one; the rest is as named."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def on_device(spec, registry, device):
    """The spelling of a provider with ``device=...`` added, where its factory has that option and the user gave none."""
    return f"{spec},device={device}" if takes(spec, registry, "device") and "device" not in parse_spec(spec)[2] else spec


def takes(spec, registry, parameter):
    """Whether the factory of a provider has a parameter."""
    factory = registry.get(parse_spec(spec)[0])
    return factory is not None and parameter in inspect.signature(factory).parameters


def _known(evidence):
    """The parts of the evidence that prepared values may refer to."""
    return {
        "evidence": evidence,
        "features": evidence.features,
        "features.values": evidence.features.values,
        "camera": evidence.camera,
        "mask": evidence.mask,
        "depth": evidence.depth,
        "depth.values": None if evidence.depth is None else evidence.depth.values,
    }


def _on_device(evidence, device):
    if str(device) == "cpu":
        return evidence
    features = dataclasses.replace(evidence.features, values=evidence.features.values.to(device))
    mask = None if evidence.mask is None else evidence.mask.to(device)
    found = None if evidence.depth is None else dataclasses.replace(evidence.depth, values=evidence.depth.values.to(device))
    return dataclasses.replace(evidence, features=features, mask=mask, depth=found)
