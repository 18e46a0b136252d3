"""What ``align`` and ``match`` have in common: their options, the pipeline they make, images, camera, names of results."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.perception.evidence import ImageInput, read_image
from semalign3d_core.perception.masks import Box
from semalign3d_core.perception.providers import ProviderOptions
from semalign3d_core.pipeline import Pipeline
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError
from semalign3d_core.runtime.files import read_json
from semalign3d_core.runtime.outputs import keep
from semalign3d_core.runtime.pictures import list_images


@dataclass(frozen=True)
class MethodOptions(ProviderOptions):
    """Options that decide how an image is looked at."""

    model: Path | None = None
    """File of a category model."""
    category: str = ""
    """Category whose model to use, instead of --model: from --models or of those that come with the package."""
    models: Path | None = None
    """Folder of category models."""
    preset: str = "fast"
    """Preset of the alignment: fast, reference, or a YAML file."""
    camera: str = ""
    """Measured camera: fx,fy,cx,cy in pixels. Default: the focal length is estimated."""
    boxes: str = ""
    """Where the object is, as a detector says: x0,y0,x1,y1 in pixels, or a JSON file {name of the image file: [x0, y0, x1, y1]}, which
    may leave out images. Default: it is searched for."""
    dataset: Path | None = None
    """Data set folder that the images belong to; needed by precomputed features, depth and masks."""


RESULTS = (".align.png", ".match.png", ".match.flow.png", ".imd.png")  # pictures that the commands write, perhaps beside their images


def make_pipeline(options: MethodOptions, transfer: str = "fast") -> Pipeline:
    """The :class:`~semalign3d_core.pipeline.Pipeline` that the options ask for."""
    from semalign3d_core.pipeline import PipelineConfig, create_pipeline

    if (options.model is None) == (not options.category):
        raise InputError("give either --model FILE or --category NAME")
    config = PipelineConfig(
        category=str(options.model or options.category),
        models="" if options.models is None else str(options.models),
        backbone=options.backbone,
        depth=options.depth,
        masks=options.masks,
        preset=options.preset,
        transfer=transfer,
        device=options.device,
    )
    return create_pipeline(config, options.dataset)


def input_images(paths: tuple[Path, ...]) -> list[Path]:
    """The image files that ``paths`` name: files as they are, folders by their content."""
    files = [file for path in paths for file in (list_images(path) if path.is_dir() else [path])]
    files = [file for file in files if file in paths or not file.name.endswith(RESULTS)]
    if not files:
        raise InputError("no image was given")
    for file in files:
        keep(file)  # also those that are read after the first results are written
    return files


def read_input(path: Path, dataset: Any) -> ImageInput:
    """The :class:`ImageInput` of a file, with its record if it belongs to the data set folder ``dataset`` (None: to none)."""
    image = read_image(path)
    return image if dataset is None else replace(image, record=_record(path, dataset))


def parse_camera(text: str, image: ImageInput) -> PinholeCamera | None:
    """``fx,fy,cx,cy`` in pixels of ``image`` as a :class:`PinholeCamera`; None for an empty text."""
    if not text:
        return None
    try:
        fx, fy, cx, cy = (float(number) for number in text.split(","))
    except ValueError:
        raise InputError(f"--camera {text!r}: expected four numbers fx,fy,cx,cy in pixels") from None
    return PinholeCamera.from_pixels([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]], image.height, image.width)


def parse_box(text: str, image: ImageInput) -> Box | None:
    """(x0, y0, x1, y1) in pixels of ``image`` from numbers or from the JSON file that ``text`` names; None where neither says it."""
    if not text:
        return None
    box: Any = text.split(",")
    if text.endswith(".json"):
        boxes = read_json(Path(text))
        if not isinstance(boxes, dict):
            raise FileFormatError(f"{text} must be an object {{name of the image file: [x0, y0, x1, y1]}}, found {type(boxes).__name__}")
        box = boxes.get(Path(image.name).name)
        if box is None:
            return None
    try:
        x0, y0, x1, y1 = (float(number) for number in box)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"--boxes {text!r}: expected x0,y0,x1,y1 in pixels for {image.name}, found {box!r}") from None
    if not (max(x0, 0) < min(x1, image.width) and max(y0, 0) < min(y1, image.height)):
        raise InputError(f"--boxes: {box} is no box inside {image.name} of {image.width} x {image.height} pixels")
    return x0, y0, x1, y1


def parse_points(text: str, image: ImageInput) -> np.ndarray:
    """``"x,y x,y ..."`` as (Q, 2) float32 pixels; raises :class:`InputError` for what is no point inside ``image``."""
    points = []
    for part in text.replace(";", " ").split():
        try:
            x, y = (float(number) for number in part.split(","))
        except ValueError:
            raise InputError(f'--points: {part!r} is no point; write them as "120,80 200,95"') from None
        if not (-0.5 <= x <= image.width - 0.5 and -0.5 <= y <= image.height - 0.5):
            raise InputError(f"--points: {part} lies outside {image.name} of {image.width} x {image.height} pixels")
        points.append((x, y))
    if not points:
        raise InputError('--points is empty; write pixels of the first image as "120,80 200,95"')
    return np.array(points, dtype=np.float32)


def result_names(files: list[Path]) -> list[str]:
    """A name for the results of each file: its stem, with the folder before it where stems repeat."""
    stems = [file.stem for file in files]
    names = [stem if stems.count(stem) == 1 else f"{file.resolve().parent.name}_{stem}" for file, stem in zip(files, stems, strict=True)]
    return [name if names.count(name) == 1 else f"{index:04d}_{name}" for index, name in enumerate(names)]


def _record(path, dataset):
    from semalign3d_core.datasets.folder import FolderDataset

    path, folder = path.resolve(), (dataset / "JPEGImages").resolve()
    if path.parent.parent != folder:
        raise MissingFileError(f"{path} is not in {folder}/<category>; precomputed files exist only for images of the data set")
    return FolderDataset(dataset).image(path.parent.name, path.stem)
