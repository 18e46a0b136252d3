"""A category model of a few random keypoints that fits the features of ``tiny_dataset``."""

import itertools

import torch
from tiny_dataset import CHANNELS, KEYPOINTS

from semalign3d_core.category.model import BetaTable, CategoryModel
from semalign3d_core.geometry.rotations import shape_diameter, uniform_rotations


def tiny_model(category, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def unit(*shape):
        return torch.nn.functional.normalize(torch.randn(*shape, generator=generator), dim=-1)

    shape = torch.randn(KEYPOINTS, 3, generator=generator)
    shape = (shape - shape.mean(0)) / shape_diameter(shape)
    weights = torch.softmax(3 * torch.randn(20, KEYPOINTS, generator=generator), -1)
    edges, quads = (torch.tensor(list(itertools.combinations(range(KEYPOINTS), n))) for n in (2, 4))
    betas = BetaTable(
        edges, edges.roll(1, 0), torch.full((len(edges), 4), 2.0), quads[:, :3], quads[:, 3], torch.full((len(quads), 6), 2.0)
    )
    return CategoryModel(
        category, tuple(f"part{k}" for k in range(KEYPOINTS)), (1, 0, 2, 3, 4), "sim", torch.ones(KEYPOINTS, dtype=torch.bool), shape,
        unit(KEYPOINTS, CHANNELS), torch.full((KEYPOINTS,), 0.6), torch.full((KEYPOINTS,), 0.2),
        unit(20, CHANNELS), torch.full((20,), 0.6), torch.full((20,), 0.2), weights, betas,
        unit(3, KEYPOINTS * 3).reshape(3, KEYPOINTS, 3), torch.full((3,), 1e-3), uniform_rotations(12), torch.tensor([1.5, 0.2]),
        torch.full((2,), torch.nan),
    )  # fmt: skip
