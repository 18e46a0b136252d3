"""Write a page that shows images on the sphere of a trained mapper: which side of the object is seen, and where its cells lie."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro

from semalign3d_core.cli.inputs import input_images, read_input
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.files import write_text
from semalign3d_core.runtime.outputs import check_replaceable


@dataclass
class Options:
    """Options of ``semalign3d sphere``."""

    mapper: tyro.conf.Positional[Path] = tyro.MISSING
    """File of a sphere mapper, as semalign3d train spherical_maps writes it, or an official one."""
    images: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Image files or folders. Default: images of the data set."""
    dataset: Path | None = None
    """Data set folder; needed without images, and by precomputed features and masks."""
    split: str = "test"
    """Split of the data set; a folder without lists of pairs is shown as a whole."""
    categories: tuple[str, ...] = ()
    """Categories of the data set. Default: all."""
    limit: int = 16
    """Images per category that are shown at most, from all sides where the views are annotated."""
    backbone: str = "compact"
    """Features that the mapper reads."""
    masks: str = "compact"
    """Mask source, so that the object alone is coloured; none colours whole images."""
    output: Path = Path("sphere.html")
    """File of the page."""
    device: str = "cpu"
    """Device that extracts features."""


def run(options: Options) -> int:
    """Looks at the images and writes the page."""
    from semalign3d_core.category.storage import load_model
    from semalign3d_core.learned.spherical_maps.inference import TrainedMapper
    from semalign3d_core.learned.spherical_maps.samples import annotated_azimuth
    from semalign3d_core.perception import backbones, masks
    from semalign3d_core.perception.providers import on_device
    from semalign3d_core.visualization.sphere_page import ImageOnSphere, sphere_page

    check_replaceable(options.output)
    backbone = backbones.create(on_device(options.backbone, backbones.BACKBONES, options.device), options.dataset)
    segmenter = masks.create(on_device(options.masks, masks.MASKS, options.device), options.dataset, None, backbone, load_model)
    mapper = TrainedMapper(options.mapper)
    mapper.check(backbone)
    shown: dict[str, list[ImageOnSphere]] = {}
    for title, image in _chosen(options):
        mask = None if segmenter is None else segmenter.segment(image)
        azimuth = None if image.record is None else annotated_azimuth(image.record)
        shown.setdefault(title, []).append(ImageOnSphere.of(image, mask, backbone, mapper, azimuth))
    write_text(options.output, sphere_page(f"On the sphere of {options.mapper.name}", shown))
    print(f"{sum(map(len, shown.values()))} images -> {options.output}")
    return 0


def _chosen(options: Options) -> Iterator[tuple]:
    """(title of the section, :class:`ImageInput`) of every image that is to be shown."""
    from semalign3d_core.datasets import open_dataset
    from semalign3d_core.learned.spherical_maps.samples import annotated_azimuth
    from semalign3d_core.perception.evidence import read_image

    if options.limit < 1:
        raise InputError(f"--limit must be at least 1, found {options.limit}")
    if options.images:
        yield from (("images", read_input(path, options.dataset)) for path in input_images(options.images))
        return
    if options.dataset is None:
        raise InputError("give images, or --dataset with the folder that holds them")
    dataset = open_dataset(options.dataset)
    for category in options.categories or dataset.categories():
        records = dataset.images(category, options.split if dataset.splits() else None)
        records = sorted(records, key=lambda record: annotated_azimuth(record) or 0.0)
        step = max(1.0, len(records) / options.limit)
        for index in range(min(options.limit, len(records))):
            record = records[int(index * step)]
            yield category, read_image(record.path, record)
