"""A matcher of your own: the most similar cell, but only if it finds the way back.

As a plug-in: semalign3d match A.jpg B.jpg --points "300,20" --plugin examples/own_matcher.py --matcher mutual
"""

from pathlib import Path

import torch

from semalign3d_core import ImageEvidence, Matcher, Matches, MatchResult, match


class MutualMatcher(Matcher):
    """Confidence falls to 0 where the way back ends elsewhere."""

    name = "mutual"

    def match(self, source: ImageEvidence, target: ImageEvidence, points: torch.Tensor) -> Matches:
        found, similarity = self._nearest(source, target, points)
        back, _ = self._nearest(target, source, found)
        near = (back - points).square().sum(dim=1).sqrt() < 2 * source.features.grid.side / source.features.grid.cells
        return Matches(found, similarity.clamp(0, 1) * near)

    def _nearest(self, source: ImageEvidence, target: ImageEvidence, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        grid, best = target.features.grid, target.features.similarity(source.features.sample(points)).max(dim=1)
        cell = torch.stack([best.indices % grid.cells, best.indices // grid.cells], dim=1)
        return grid.cell_to_pixel(cell.float()), best.values


MATCHERS = {"mutual": MutualMatcher}


def main() -> MatchResult:
    folder = Path(__file__).parent / "photographs"
    return match(folder / "coffee.jpg", folder / "coffee_turned.jpg", [[300, 22]], matcher=MutualMatcher())


if __name__ == "__main__":
    print(main().to_dict())
