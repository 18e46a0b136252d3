"""What every matcher returns."""

from dataclasses import dataclass

import torch

from semalign3d_core.runtime.values import ShortRepr


@dataclass(frozen=True, repr=False)
class Matches(ShortRepr):
    """Where ``points`` (Q) of a source image are in a target image.

    points:     (Q, 2) float32 pixels of the target
    confidence: (Q,) in [0, 1]; NaN where the matcher has no notion of it
    points_3d:  (Q, 3) in the target's camera frame, or None
    visible:    (Q,) bool, or None
    """

    points: torch.Tensor
    confidence: torch.Tensor
    points_3d: torch.Tensor | None = None
    visible: torch.Tensor | None = None
