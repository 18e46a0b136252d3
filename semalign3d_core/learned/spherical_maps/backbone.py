"""Features with the place on the sphere beside them (SphericalMaps, CVPR 2024): three more channels that tell sides apart."""

import math
from typing import Any

import torch

from semalign3d_core.learned.spherical_maps.inference import FEATURE_SHARE, TrainedMapper, mapper_input
from semalign3d_core.perception.backbones import FeatureBackbone
from semalign3d_core.perception.evidence import FeatureMap, ImageInput
from semalign3d_core.runtime.errors import InputError


class SphericalMapsBackbone(FeatureBackbone):
    """The unit features of a backbone times the root of their share, then the unit sphere vector times the root of the rest.

    Inner products are then the published fused cosine similarity, 0.8 that of the features and 0.2 that of the sphere, so every
    matcher and the alignment use both; the matcher ``spherical_maps`` takes the two apart again.

    features: backbone that is compared;  mapped: backbone that the mapper reads, mostly the same;  mapper: :class:`TrainedMapper`
    """

    def __init__(self, features: FeatureBackbone, mapped: FeatureBackbone, mapper: TrainedMapper, share: float = FEATURE_SHARE) -> None:
        mapper.check(mapped)
        if not 0 <= share <= 1:
            raise InputError(f"share must lie in 0..1, found {share}")
        self.features, self.mapped, self.mapper, self.share = features, mapped, mapper, share
        self.channels = features.channels + 3
        apart = "" if mapped is features else f" of {mapped.name}"
        self.name = f"{features.name}+sphere-{mapper.label}{apart}" + ("" if share == FEATURE_SHARE else f"-{share:g}")
        self.any_image, self.close_up = features.any_image and mapped.any_image, features.close_up
        self.concurrent = features.concurrent and mapped.concurrent

    def extract(self, image: ImageInput) -> FeatureMap:
        """Fused features (C + 3, cells, cells) of unit norm; see the backbone protocol."""
        found = self.features.extract(image)
        sphere = self.sphere(image, found)
        values = torch.cat([math.sqrt(self.share) * found.values, math.sqrt(1 - self.share) * sphere])
        return FeatureMap(values, found.grid)

    def sphere(self, image: ImageInput, found: FeatureMap) -> torch.Tensor:
        """Unit vectors (3, cells, cells) on the grid of the features ``found``."""
        if self.mapped is self.features and not self.mapper.facts.raw:
            return self.mapper.of_features(found.values)
        values, grid = mapper_input(self.mapped, image, self.mapper.facts.raw)
        points = self.mapper.points(values)
        if grid == found.grid:
            return points
        seen = grid.sample(points, found.grid.cell_centres())
        return torch.nn.functional.normalize(seen, dim=-1).T.reshape(3, found.grid.cells, found.grid.cells).contiguous()


def load_spherical_maps(
    argument: str, features: str = "", mapped: str = "", share: float = FEATURE_SHARE, dataset_root: Any = None, device: str = "cpu"
) -> SphericalMapsBackbone:
    """The :class:`SphericalMapsBackbone` of a mapper's file; ``features`` and ``mapped`` are spelled as on the command line."""
    from semalign3d_core.perception.backbones import BACKBONES, create
    from semalign3d_core.perception.backbones.precision import choose_device
    from semalign3d_core.perception.providers import on_device

    if not argument:
        raise InputError("spherical_maps needs the file of a mapper: spherical_maps:FILE,features=BACKBONE")
    backbone = create(on_device(features or "dinov2:base", BACKBONES, device), dataset_root)
    other = create(on_device(mapped, BACKBONES, device), dataset_root) if mapped else backbone
    return SphericalMapsBackbone(backbone, other, TrainedMapper(argument, choose_device(device)), float(share))
