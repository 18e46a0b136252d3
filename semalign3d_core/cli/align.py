"""Place a category model in images: named keypoints in 2D and 3D, a pose, and a confidence."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from semalign3d_core.cli.inputs import MethodOptions, input_images, make_pipeline, parse_box, parse_camera, read_input, result_names
from semalign3d_core.cli.results import keypoint_table
from semalign3d_core.runtime.errors import SemAlign3DError
from semalign3d_core.runtime.files import write_json, write_text


@dataclass(frozen=True)
class Options(MethodOptions):
    """Options of ``semalign3d align``."""

    images: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Image files, or folders of images."""
    output: Path = Path("out")
    """Folder for NAME.align.json and the picture NAME.align.png of every image."""
    viz: Path | None = None
    """Page (.html) that shows how the result came about, or picture (.png); with several images, one per image."""
    rerun: Path | None = None
    """Recording (.rrd) of all images, one after the other, for the viewer of rerun (extra "rerun")."""
    mapper: Path | None = None
    """Sphere mapper (semalign3d train spherical_maps) of the features of --backbone: the page also shows the image on its sphere."""


def run(options):
    """Aligns all images; a bad one is reported and does not stop the others. Returns 1 if there was one, else 0."""
    from tqdm import tqdm

    files = input_images(options.images)
    pipeline = make_pipeline(options)
    failed = 0
    recording = _recording(options)
    named = list(zip(files, result_names(files), strict=True))
    for n, (file, name) in enumerate(tqdm(named, unit="image", disable=len(files) == 1 or None, file=sys.stderr)):
        try:
            found, result = _align(pipeline, file, name, options)
            if recording is not None:
                recording.add(found, float(n))
        except SemAlign3DError as error:
            failed += 1
            tqdm.write(f"semalign3d align: {error}", file=sys.stderr)
            continue
        tqdm.write(_summary(result, options.output / f"{name}.align.json"), file=sys.stdout)
    if recording is not None:
        recording.close()
    if failed and len(files) > 1:
        print(f"semalign3d align: {failed} of {len(files)} images could not be aligned", file=sys.stderr)
    return 1 if failed else 0


def _align(pipeline, file, name, options):
    image = read_input(file, options.dataset)
    start = time.perf_counter()
    found = pipeline.process(image, camera=parse_camera(options.camera, image), box=parse_box(options.boxes, image))
    result = {**found.to_dict(), "seconds": round(time.perf_counter() - start, 4)}
    write_json(options.output / f"{name}.align.json", result)
    found.draw(options.output / f"{name}.align.png")
    if options.viz is not None:
        _visualise(pipeline, found, _viz_path(options, name), options.mapper)
    return found, result


def _recording(options):
    if options.rerun is None:
        return None
    from semalign3d_core.export.rerun import RerunLog

    return RerunLog(options.rerun)


def _viz_path(options, name):
    single = len(options.images) == 1 and not options.images[0].is_dir()
    return options.viz if single else options.viz.with_name(f"{options.viz.stem}_{name}{options.viz.suffix}")


def _visualise(pipeline, found, path, mapper=None):
    if path.suffix.lower() != ".html":
        found.draw(path)
        return
    from semalign3d_core.visualization.align_report import align_page

    pictures = None if mapper is None else _on_the_sphere(pipeline, found, mapper)
    write_text(path, align_page(pipeline.model, found.evidence, found.alignment, pictures))


def _on_the_sphere(pipeline, found, path):
    """Pictures of the image's places on the sphere of the mapper in file ``path``."""
    from semalign3d_core.learned.spherical_maps.inference import TrainedMapper
    from semalign3d_core.learned.spherical_maps.pictures import sphere_pictures

    mapper, evidence, alignment = TrainedMapper.for_pictures(path, pipeline.backbone), found.evidence, found.alignment
    features = evidence.features.values.cpu()
    mask = None if evidence.mask is None else evidence.mask.cpu()
    keypoints = alignment.keypoints_2d[alignment.visible].cpu() if alignment.found else None
    return sphere_pictures(evidence.image, features, mapper.of_features(features), evidence.features.grid, mask, keypoints)


def _summary(result, path):
    if not result["found"]:
        return f"{result['image']}: {result['category']} not found (confidence {result['confidence']:.2f}) -> {path}"
    head = f"{result['image']}: {result['category']} found, confidence {result['confidence']:.2f}, {result['seconds']:.2f} s -> {path}"
    return f"{head}\n{keypoint_table(result)}"
