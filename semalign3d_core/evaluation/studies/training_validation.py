"""PCK of the network in training on the pairs of a validation split, standard and geometry-aware."""

from collections import OrderedDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from semalign3d_core.datasets.canvas import published_subsample
from semalign3d_core.evaluation.keypoints.pairs import keypoint_pair
from semalign3d_core.evaluation.keypoints.scoring import score_pair, summarise
from semalign3d_core.geometry.image_grid import CANVAS_CELLS
from semalign3d_core.matchers.soft_argmax import SimilarityMatcher
from semalign3d_core.perception.evidence import FeatureMap

WIDTH = 7  # half width of the window in cells of 60, as in the published evaluation
ALPHAS = {"bbox": (0.1, 0.05), "image": (0.05, 0.1)}  # the first one chooses the network
IMAGES = 60  # whose features are kept while the pairs of a category are matched


def validation_on(split: str) -> Callable[..., Any]:
    """What :func:`train_geoaware` makes its validation with: function(dataset, source, categories, config) -> :class:`Validation`.

    ``config.validation_pairs`` pairs of each category of the split; None where the data set has no such split.
    """

    def make(dataset, source, categories, config):
        if split not in dataset.splits():
            return None
        by_category: dict[str, list[str]] = {}
        for name in dataset.pair_names(split):
            by_category.setdefault(name.rpartition(":")[2], []).append(name)
        threshold: Any = SimpleNamespace(threshold="dataset")
        pairs: list[Any] = []
        for category, names in sorted(by_category.items()):
            if not categories or category in categories:
                chosen = published_subsample(names, config.validation_pairs)
                pairs += [keypoint_pair(dataset, threshold, dataset.pair(split, name), category) for name in chosen]
        return Validation([pair for pair in pairs if pair.labels], source, ALPHAS[dataset.threshold_kind]) if pairs else None

    return make


class Validation:
    """Scores a :class:`~semalign3d_core.learned.geoaware.train.PairModule` on pairs, a function of it.

    pairs: :class:`EvaluationPair`, those of a category behind one another;  source: :class:`FeatureSource`
    """

    def __init__(self, pairs, source, alphas):
        self.pairs, self.source, self.alphas = pairs, source, alphas

    @torch.no_grad()
    def __call__(self, module) -> dict[str, float]:
        """{"PCK@0.1": percent, ...}, means over pairs; the first is what the best network is chosen by."""
        was_training = module.training
        module.eval()
        seen: OrderedDict[Any, Any] = OrderedDict()
        scores = []
        for pair in self.pairs:
            source, target = (self._features(module, side, seen) for side in (pair.record.source, pair.record.target))
            points = torch.from_numpy(pair.source_points).to(source.features.values.device)
            matcher = SimilarityMatcher("window_soft_argmax", WIDTH * target.features.grid.cells / CANVAS_CELLS)
            scores.append(score_pair(pair, matcher.match(source, target, points).points.cpu().numpy(), self.alphas))
        module.train(was_training)
        summary = summarise(scores, self.alphas)["all"]
        found = {f"PCK@{alpha}": summary["pck"][str(alpha)]["pair_weighted"] for alpha in self.alphas}
        subset = summary["geometry_aware"]["pck"] if summary["geometry_aware"]["pairs"] else {}
        return found | {f"geometry-aware PCK@{alpha}": values["pair_weighted"] for alpha, values in subset.items()}

    def _features(self, module, record, seen: OrderedDict) -> SimpleNamespace:
        """What the matcher looks at of an image: its ``features`` by the network."""
        key = record.category, record.name
        if key not in seen:
            raw = self.source.look(record)
            device = next(module.parameters()).device
            tokens: Tensor = module.tokens(raw.values[None].to(device).float())[0]
            seen[key] = SimpleNamespace(features=FeatureMap(tokens.T.reshape(-1, *raw.values.shape[1:]), raw.grid))
            while len(seen) > IMAGES:
                seen.popitem(last=False)
        return seen[key]
