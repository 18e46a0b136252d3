"""The fit of the prior of all confidence maps, ``PRIOR`` in semalign3d_core/alignment/judgement.py.

    python bench/confidence_prior.py [--work out/prior] [--train 50]

Renders six categories, builds each with simulated features and with the embedded backbone, and keeps what the calibration of each
build tried. Prints the weights of one fit to all of it, and what they are worth on categories that the fit has not seen.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts its threads

import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from alignment_scores import calibration_error

from semalign3d_core.alignment.judgement import MAPS, STATISTICS
from semalign3d_core.calibration import confidence_maps as calibration
from semalign3d_core.calibration.logistic import area_under_roc, fit_logistic
from semalign3d_core.cli import build, synth
from semalign3d_core.runtime.files import atomic_path

BACKBONES = ("precomputed:sim", "compact")
RIDGE, BIAS_RIDGE = 3.0, 0.3  # pull of the common fit towards nothing; it rests on thousands of samples


@dataclass
class Options:
    """Options of the fit."""

    work: Path = Path("out/prior")
    """Folder of pictures, models and samples; what is there is used again."""
    categories: tuple[str, ...] = ("aeroplane", "bottle", "car", "chair", "mug", "tvmonitor")
    """Categories."""
    train: int = 50
    """Pictures per category."""
    seed: int = 31
    """Of the rendered data set."""


def samples(options, backbone, category):
    """What the calibration of one build learned from: {map: (table, labels)}, from its file or from a build."""
    path = options.work / f"{backbone.replace(':', '_')}_{category}.samples"
    if not path.is_file():
        kept, original = [], calibration.samples_of
        with patch.object(calibration, "samples_of", side_effect=lambda *tried: kept.append(original(*tried)) or kept[-1]):
            places = {"dataset": options.work / "data", "output": options.work / path.stem}
            build.run(build.Options(category=(category,), backbone=backbone, **places))
        with atomic_path(path) as temporary:
            Path(temporary).write_bytes(pickle.dumps(kept[-1]))
    return pickle.loads(path.read_bytes())  # a file that this script wrote


def pooled(parts, name):
    """Table and labels of a map over several samples."""
    tables, labels = zip(*(part[name] for part in parts), strict=True)
    return torch.cat(tables), torch.cat(labels)


def fit(parts, name):
    """Bias and weights (1 + S,) of a map, from several samples."""
    nothing = torch.zeros(1 + len(STATISTICS), dtype=torch.float64)
    return torch.tensor(fit_logistic(*pooled(parts, name), nothing, ridge=RIDGE, bias_ridge=BIAS_RIDGE), dtype=torch.float64)


def main(options):
    data = synth.Options(options.work / "data", options.categories, options.train, 0, 0, 8 * options.train, options.seed, features="sim")
    synth.run(data)
    parts = {(b, c): samples(options, b, c) for b in BACKBONES for c in options.categories}
    print("\nof categories that the fit has not seen: AUROC, calibration error")
    for name in MAPS:
        chances, truth = [], []
        for category in options.categories:
            weights = fit([part for (_, other), part in parts.items() if other != category], name)
            table, labels = pooled([part for (_, other), part in parts.items() if other == category], name)
            chances.append(torch.sigmoid(weights[0] + table @ weights[1:]))
            truth.append(labels)
        chances, truth = torch.cat(chances), torch.cat(truth)
        print(f"{name:10s} {len(truth):5d} samples, {100 * float(truth.double().mean()):3.0f} % true  "
              f"{area_under_roc(chances, truth):.3f}  {calibration_error(chances, truth):.3f}")  # fmt: skip
    print("\nPRIOR")
    for name in MAPS:
        print(f'"{name}": ({", ".join(f"{weight:.2f}" for weight in fit(list(parts.values()), name).tolist())}),')


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
