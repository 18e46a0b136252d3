"""A backbone of your own: any class that turns an image into features on a square grid.

As a plug-in: semalign3d match A.jpg B.jpg --points "300,20" --plugin examples/own_backbone.py --backbone edges
"""

from pathlib import Path

import torch
from torch.nn.functional import adaptive_avg_pool2d, normalize

from semalign3d_core import FeatureBackbone, FeatureMap, ImageInput, MatchResult, SquareGrid, match


class EdgeBackbone(FeatureBackbone):
    """Mean colour and mean edges of each cell."""

    name, channels = "edges-1", 4

    def __init__(self, argument: str = "") -> None:
        self.cells = int(argument or 40)

    def extract(self, image: ImageInput) -> FeatureMap:
        grid = SquareGrid(image.height, image.width, self.cells, window=image.window)
        square = grid.square(torch.tensor(image.rgb).permute(2, 0, 1)).float() / 255
        edges = torch.nn.functional.pad(square.mean(0)[None].diff(dim=2).abs(), (0, 1))
        values = adaptive_avg_pool2d(torch.cat([square - square.mean(), 4 * edges]), self.cells)
        return FeatureMap(normalize(values, dim=0), grid)


BACKBONES = {"edges": EdgeBackbone}


def main() -> MatchResult:
    folder = Path(__file__).parent / "photographs"
    return match(folder / "coffee.jpg", folder / "coffee_turned.jpg", [[300, 22]], backbone=EdgeBackbone())


if __name__ == "__main__":
    print(main().to_dict())
