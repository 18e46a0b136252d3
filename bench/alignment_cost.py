"""What an alignment costs with features as wide as real ones, and how much cheaper the fast preset is than the published optimiser."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from alignment_scores import timed

from semalign3d_core.alignment.aligner import Aligner

CHANNELS = 768
REPEATS = 30


def widened(model, evidences):
    """The model and images with CHANNELS channels, by an isometry, so that all cosines stay."""
    channels = model.dense_features.shape[1]
    spread = torch.linalg.qr(torch.randn(CHANNELS, channels, generator=torch.Generator().manual_seed(0)))[0].T
    wide = replace(model, dense_features=model.dense_features @ spread, keypoint_features=model.keypoint_features @ spread)
    return wide, [
        replace(evidence, features=replace(evidence.features, values=torch.einsum("cd,chw->dhw", spread, evidence.features.values)))
        for evidence in evidences
    ]


def _memory(name):
    """MiB of a line of /proc/self/status."""
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) / 1024


def _peak_growth(call):
    """What ``call`` returns, and the MiB by which the memory of this process rose at most while it ran (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _memory("VmRSS")
    return call(), _memory("VmHWM") - before


def print_cost(models, scenes):
    """CPU milliseconds of one thread, cold and warm, similarity product included; CPU seconds of the reference preset; memory."""
    print(f"\n{'cost':12s}{'J':>6s}{'K':>5s}{'cold ms':>10s}{'warm ms':>10s}{'fewest':>16s}{'reference s':>13s}{'ratio':>8s}"
          f"{'peak MiB':>11s}")  # fmt: skip
    for name, model in models.items():
        wide, evidences = widened(model, [scene.evidence for scene in scenes[name][:6]])
        (aligner, firsts), grown = _peak_growth(partial(_first_alignments, wide, evidences))
        reference = Aligner(wide, "reference")
        cold, warm = [], []
        for n in range(REPEATS):
            evidence, first = evidences[n % len(evidences)], firsts[n % len(evidences)]
            cold.append(timed(partial(aligner.align, evidence))[1])
            alignment, seconds = timed(partial(aligner.align, evidence, first))
            if alignment.tracking.warm_frames:
                warm.append(seconds)
        seconds = np.median([timed(partial(reference.align, evidence))[1] for evidence in evidences[:2]])
        ms = [1e3 * np.median(values) for values in (cold, warm)]
        fewest = f"{1e3 * min(cold):.0f} / {1e3 * min(warm):.0f}"
        print(f"{name:12s}{len(aligner.category.points):6d}{len(aligner.category.shape):5d}{ms[0]:10.1f}{ms[1]:10.1f}{fewest:>16s}{seconds:13.1f}"
              f"{1e3 * seconds / ms[0]:8.0f}{grown:11.0f}", flush=True)  # fmt: skip
    print("medians; fewest: the smallest of all repetitions, less disturbed by other work on the machine; "
          "peak: memory besides model and features")  # fmt: skip


def _first_alignments(model, evidences):
    aligner = Aligner(model)
    return aligner, [aligner.align(evidence) for evidence in evidences]
