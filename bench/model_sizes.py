"""How large are the objects of the synthetic world? Writes it into models that were built without metric depth.

    python bench/model_sizes.py [--models DIR] [--instances 40]

Prints mean and spread of the largest distance between two keypoints over instances of both worlds. With ``--models`` every model of
a synthetic category in the folder gets them as its size in metres, which ``category_size`` uses. A category whose members differ too
much (light aircraft and airliners) gets none.
"""

from dataclasses import replace
from pathlib import Path

import torch
import tyro

from semalign3d_core.category.storage import load_model, save_model
from semalign3d_core.datasets.synthetic import CATEGORIES, make_instance

LARGEST_SPREAD = 1 / 3  # of the mean: what is less sure than that is not known


def main(models: Path | None = None, instances: int = 40) -> None:
    """Prints the sizes.

    models: folder of category models (``CATEGORY.safetensors``) that get them;  instances: of each world
    """
    for category in CATEGORIES:
        sizes = torch.tensor([make_instance(category, seed, world).diameter for world in ("simple", "varied") for seed in range(instances)])
        size = torch.stack([sizes.mean(), sizes.std()]).float()
        known = bool(size[1] < LARGEST_SPREAD * size[0])
        print(f"{category:10s} {size[0]:.2f} m, spread {size[1]:.2f} m{'' if known else ': not written'}")
        path = None if models is None else models / f"{category}.safetensors"
        if path is not None and path.is_file() and known:
            save_model(replace(load_model(path), diameter_metres=size), path)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
