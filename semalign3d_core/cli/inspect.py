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
    """Data set folder with the training images; nothing means the folder that the model names, if it is here."""


def run(options: Options) -> int:
    """Writes the page and names the images that look wrong."""
    from semalign3d_core.category.storage import find_model, load_model
    from semalign3d_core.runtime.files import write_text
    from semalign3d_core.visualization.inspect_report import default_dataset, image_cards, inspect_page

    path = find_model(options.model)
    model = load_model(path)
    write_text(options.output, inspect_page(model, options.dataset or default_dataset(model)))
    cards, _ = image_cards(model, model.built_from.get("report", {}), None)
    print(f"{path}: {model.category}, {int(model.present.sum())} keypoints, {len(model.dense_mu)} dense points -> {options.output}")
    for card in (card for card in cards if card["bad"]):
        worst = f"worst {card['worst']} by {card['worstPixels']:.1f} px"
        print(f"  look at {card['name']}: error {100 * card['error']:.1f} % of the object, {worst}")
    return 0
