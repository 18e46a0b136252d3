"""The paper's Tables 3 and 4: what each loss, the arg-max, each level and the adaptation are worth.

All variants are trained side by side on the same pairs, whose frozen features are computed once.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from semalign3d_core.datasets.records import PairRecord
from semalign3d_core.learned.loop import Training, train
from semalign3d_core.learned.sfnet.benchmark import FrozenLevels, interval, keypoint_scores
from semalign3d_core.learned.sfnet.network import SFNet
from semalign3d_core.learned.sfnet.pictures import MaskedPicture
from semalign3d_core.learned.sfnet.pyramids import create_pyramid
from semalign3d_core.learned.sfnet.storage import save_network
from semalign3d_core.learned.sfnet.train import Batches, Lesson, SFNetTraining, new_network
from semalign3d_core.runtime.config import to_dict
from semalign3d_core.runtime.files import write_json

CHECKPOINT_EVERY = 20  # steps; a step of all variants takes as long as several of one

# of the networks that are trained: name -> (changes of SFNetConfig, losses that are left out)
TRAINED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "full": ({}, ()),
    "mask": ({}, ("flow", "smooth")),
    "flow": ({}, ("mask", "smooth")),
    "mask + flow": ({}, ("smooth",)),
    "mask + smooth": ({}, ("flow",)),
    "flow + smooth": ({}, ("mask",)),
    "soft": ({"readout": "soft"}, ()),
    "level 3": ({"levels": (3,)}, ()),
    "level 4": ({"levels": (4,)}, ()),
    "level 3, soft": ({"levels": (3,), "readout": "soft"}, ()),
}
# rows of the tables: (label, trained network or None for the frozen features, levels, arg-max in the test, published on PF-PASCAL)
ROWS = (
    ("no adaptation, both levels, hard", None, (3, 4), "hard", 45.8),
    ("no adaptation, both levels, soft", None, (3, 4), "soft", 8.8),
    ("no adaptation, both levels, kernel", None, (3, 4), "kernel", 28.4),
    ("level 3, soft in training, hard", "level 3, soft", (3,), "hard", 72.5),
    ("level 3, soft in training, soft", "level 3, soft", (3,), "soft", 71.7),
    ("level 3, kernel", "level 3", (3,), "kernel", 75.0),
    ("level 4, kernel", "level 4", (4,), "kernel", None),
    ("both levels, soft in training, hard", "soft", (3, 4), "hard", 76.8),
    ("both levels, soft in training, soft", "soft", (3, 4), "soft", 76.2),
    ("both levels, kernel in training, hard", "full", (3, 4), "hard", None),
    ("losses: mask", "mask", (3, 4), "kernel", 67.5),
    ("losses: flow", "flow", (3, 4), "kernel", 71.8),
    ("losses: flow + smooth", "flow + smooth", (3, 4), "kernel", None),
    ("losses: mask + smooth", "mask + smooth", (3, 4), "kernel", None),
    ("losses: mask + flow", "mask + flow", (3, 4), "kernel", 78.2),
    ("full: both levels, kernel, all losses", "full", (3, 4), "kernel", 78.7),
)


def train_variants(
    pictures: list[MaskedPicture], config: SFNetTraining, work: Path, quiet: bool = False, device: Any = "cpu"
) -> dict[str, SFNet]:
    """{name: :class:`SFNet` in evaluation mode} of ``TRAINED``, resumable in the folder ``work``."""
    pyramid, networks = create_pyramid(config.network.pyramid).to(device), {}
    for name, (changes, left_out) in TRAINED.items():
        zero: dict[str, Any] = dict.fromkeys(left_out, 0.0)
        weights = replace(config.losses, **zero)
        networks[name] = new_network(replace(config.network, **changes), pyramid, config.seed), weights
    batches = Batches(pictures, config)
    lesson = Lesson(networks, batches, config)
    settings = {"training": to_dict(config), "pictures": [str(picture.picture) for picture in pictures], "variants": list(TRAINED)}
    training = Training(dict(lesson.modules), lesson.optimiser, lesson.step, settings=settings)
    train(training, work, config.epochs * batches.per_epoch, min(batches.per_epoch, CHECKPOINT_EVERY), title="SFNet, ablation", quiet=quiet)
    return {name: network.eval() for name, network in lesson.modules.items()}


def evaluate_variants(networks: dict[str, SFNet], config: SFNetTraining, pairs: list[PairRecord]) -> list[dict[str, Any]]:
    """[{"row", "pck", "low", "high", "lost", "lost_low", "lost_high", "published"}]: PCK@0.1 in percent of every row of the tables.

    low, high: its 95 % bootstrap interval;  lost: what the last row, the full network, has more on the same pairs, with its interval
    pairs: :class:`PairRecord` ...
    """
    pyramid, found, every = networks["full"].pyramid, [], []
    frozen = FrozenLevels(pyramid, config.network.cells)
    for label, name, levels, readout, published in ROWS:
        settings = replace(config.network, levels=levels, readout=readout, adapt=name is not None)
        network = SFNet(pyramid, settings).to(next(pyramid.parameters()).device).eval()
        if name is not None:
            network.load_state_dict(networks[name].state_dict())
        scores = keypoint_scores(network, pairs, "bbox", frozen=frozen)[:, 0]
        every.append(scores)
        low, high = interval(pairs, scores)
        found.append({"row": label, "pck": 100 * np.nanmean(scores), "low": 100 * low, "high": 100 * high, "published": published})
    for row, scores in zip(found, every, strict=True):
        low, high = interval(pairs, every[-1] - scores)
        row |= {"lost": 100 * np.nanmean(every[-1] - scores), "lost_low": 100 * low, "lost_high": 100 * high}
    return found


def run_ablation(pictures: list[MaskedPicture], config: SFNetTraining, work: Path, pairs: list[PairRecord], device: Any = "cpu") -> str:
    """Trains and evaluates all variants; writes ``ablation.json`` and ``full.safetensors`` into ``work`` and returns the table as text."""
    networks = train_variants(pictures, config, work, device=device)
    save_network(networks["full"], work / "full.safetensors", pictures=len(pictures))
    rows = evaluate_variants(networks, config, pairs)
    write_json(work / "ablation.json", rows, ours=True)
    return table(rows)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows of :func:`evaluate_variants` as text."""
    lines = [f"{'':42s} {'PCK@0.1':>8s} {'95 % interval':>15s} {'below full':>11s} {'95 % interval':>15s} {'published, PF-PASCAL':>21s}"]
    for row in rows:
        published = "-" if row["published"] is None else f"{row['published']:.1f}"
        own, lost = f"{row['low']:.1f} to {row['high']:.1f}", f"{row['lost_low']:.1f} to {row['lost_high']:.1f}"
        lines.append(f"{row['row']:42s} {row['pck']:8.1f} {own:>15s} {row['lost']:11.1f} {lost:>15s} {published:>21s}")
    return "\n".join(lines)
