"""Write an HTML page that shows what a category model holds: shape, statistics, training images with their errors."""

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass
class Options:
    """Options of ``semalign3d inspect``."""

    model: tyro.conf.Positional[str] = tyro.MISSING
    """File of a category model, or the category of one that comes with the package."""
    output: Path = Path("inspect.html")
    """Page to write; it needs nothing else, neither files nor a network."""
    dataset: Path | None = None
    """Data set folder with the training images. Default: the folder that the model names, if it is here."""


def run(options: Options) -> int:
    """Writes the page and names the images that look wrong."""
    from semalign3d_core.category.storage import find_model, load_model, shipped_models
    from semalign3d_core.runtime.files import write_text
    from semalign3d_core.runtime.outputs import check_replaceable
    from semalign3d_core.visualization.inspect_report import default_dataset, images_to_look_at, inspect_page

    check_replaceable(options.output)
    path = find_model(options.model)
    model = load_model(path)
    shipped = path.parent == shipped_models()  # its pictures do not come with it, whatever lies where they were
    dataset = options.dataset or (None if shipped else default_dataset(model))
    write_text(options.output, inspect_page(model, dataset))
    print(f"{path}: {model.category}, {int(model.present.sum())} keypoints, {len(model.dense_mu)} dense points -> {options.output}")
    if dataset is None:
        print("  its training images are not here: the page shows shape and statistics; give their folder with --dataset")
    for line in [] if shipped else images_to_look_at(model, model.built_from.get("report", {})):
        print(line)
    return 0
