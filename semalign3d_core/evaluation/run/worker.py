"""What one process does: prepares images and matches the pairs of a source image, everything through the cache.

A worker is made from the configuration alone, so that any process of any engine can make its own; see :func:`run_item`.
"""

import functools
import time
from dataclasses import replace
from typing import Any

import torch

from semalign3d_core.category.storage import check_backbone
from semalign3d_core.evaluation.items import ItemResult, WorkItem
from semalign3d_core.evaluation.keypoints.kap import pair_samples, source_keypoints
from semalign3d_core.evaluation.run.config import EvaluationConfig
from semalign3d_core.evaluation.run.hardware import process_facts
from semalign3d_core.evaluation.run.images import ImageStore
from semalign3d_core.evaluation.run.matching import match_to_targets, rate_cells
from semalign3d_core.evaluation.run.methods import make_matcher
from semalign3d_core.perception.backbones.precision import choose_device
from semalign3d_core.runtime.cache import Cache
from semalign3d_core.runtime.code_hash import code_of
from semalign3d_core.runtime.errors import OutputError, SemAlign3DError
from semalign3d_core.runtime.files import sha256_of_arrays


def run_item(config: EvaluationConfig, run: str, item: WorkItem) -> ItemResult:
    """Prepares or matches one :class:`WorkItem`; bad input becomes a failure in the :class:`ItemResult`.

    run: names the evaluation, so that a process keeps nothing (models, images) from one evaluation to the next.
    """
    return _worker(config, run).run(item)


def check_providers(config: EvaluationConfig, run: str, category: str) -> None:
    """Makes everything that looks at images, as far as it is known without (``category`` empty) or with a category.

    What is missing (weights, packages, files) ends the run here, before any work.
    """
    worker = _worker(config, run)
    if category:
        worker.matcher(category), worker.images.masks(category)


@functools.lru_cache(maxsize=1)
def _worker(config, run):
    return Worker(config)


class Worker:
    """Matchers and images of one process."""

    def __init__(self, config):
        self.config = config
        self.device = str(choose_device(config.device))
        self.cache = Cache(config.cache_folder)
        self._matchers = {}
        self.images = ImageStore(config, self.cache, self.device, self.matcher)
        torch.manual_seed(config.seed)

    def run(self, item: WorkItem) -> ItemResult:
        """The :class:`ItemResult` of one item."""
        self.cache.counts.clear()
        self.matcher(item.category), self.images.masks(item.category)  # what they lack is no fault of the image and ends the run
        started = time.perf_counter()
        try:
            done = self._done(item)
        except OutputError:
            raise
        except SemAlign3DError as error:
            done = ItemResult(str(error))
        seconds = time.perf_counter() - started
        return replace(done, counts=dict(self.cache.counts), seconds=seconds, process=process_facts())

    def _done(self, item):
        if item.queries:
            return ItemResult(points=self._match(item), kap=self._kap(item))
        return ItemResult(digest=self.images.image(item.category, item.record).digest)

    def matcher(self, category: str) -> tuple[Any, dict[str, Any]]:
        """The (matcher, description) of a category; raises :class:`InputError` if its model knows other features."""
        if category not in self._matchers:
            made = make_matcher(self.config, category, self.device, self.images.backbone)
            if made[0].model is not None:
                check_backbone(made[0].model, self.images.backbone.name)
            self._matchers = {category: made}  # work comes category by category
        return self._matchers[category]

    def _match(self, item):
        """{pair: points} of all pairs of one source image, which are one entry of the cache."""
        queries = [query for query in item.queries if len(query.points)]
        if not queries:
            return {}
        matcher, description = self.matcher(item.category)
        arrays = {f"points {i}": query.points for i, query in enumerate(queries)}
        if matcher.uses_mirror:
            arrays |= {f"partners {i}": query.partners for i, query in enumerate(queries)}
        depends_on = {
            "source": item.digest,
            "targets": [query.digest for query in queries],
            "points": sha256_of_arrays(arrays),
            "matching": code_of(match_to_targets),
            **description,
        }
        _, tensors = self.cache.fetch("matches", depends_on, lambda: self._matched(matcher, item, queries))
        return {query.name: tensors[f"p{i}"].numpy() for i, query in enumerate(queries)}

    def _matched(self, matcher, item, queries):
        source, found = self.images.image(item.category, item.record), {}
        with torch.no_grad():
            match = match_to_targets(matcher, source, queries, self.device)
            for i, query in enumerate(queries):
                points = match(query, self.images.image(item.category, query.target)).points
                found[f"p{i}"] = points.detach().float().cpu().contiguous()
        return {}, found

    def _kap(self, item):
        """{pair: its samples for KAP}, if asked for."""
        if self.config.kap == "none":
            return {}
        source, found = self.images.image(item.category, item.record), {}
        rate = rate_cells(self.matcher(item.category)[0], source, source_keypoints(item.record).to(self.device))
        with torch.no_grad():
            for query in item.queries:
                target = self.images.image(item.category, query.target)
                grid, records = target.features.grid, (item.record, query.target)
                found[query.name] = pair_samples(self.config, rate(target), grid, records, query.unit)
        return found
