"""Place a category model in images: named keypoints in 2D and 3D, a pose, and a confidence."""

import sys
import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tyro

from semalign3d_core.cli.inputs import MethodOptions, input_images, make_pipeline, parse_box, parse_camera, read_input, result_names
from semalign3d_core.cli.results import keypoint_table
from semalign3d_core.runtime.errors import SemAlign3DError
from semalign3d_core.runtime.files import write_json, write_text
from semalign3d_core.runtime.outputs import check_replaceable


@dataclass(frozen=True)
class Options(MethodOptions):
    """Options of ``semalign3d align``."""

    images: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Image files, or folders of images."""
    output: Path = Path("out")
    """Folder for the results of every image: NAME.align.json, and NAME.align.png with its keypoints."""
    viz: Path | None = None
    """Page (.html) that explains the result, or picture (.png). With several images there is one per image, VIZ_NAME, and
    VIZ.html lists the pages."""
    rerun: Path | None = None
    """Recording (.rrd) of all images, one after the other, for the viewer of rerun (extra "rerun")."""
    mapper: Path | None = None
    """Sphere mapper (semalign3d train spherical_maps) of the features of --backbone: the page also shows the image on its sphere."""


def run(options: Options) -> int:
    """Aligns all images; a bad one is reported and does not stop the others. Returns 1 if there was one, else 0."""
    from tqdm import tqdm

    files = input_images(options.images)
    for name in result_names(files) if options.viz is not None else ():
        check_replaceable(_viz_path(options, name))
    if options.viz is not None:
        check_replaceable(options.viz)  # with several images the list of their pages
    pipeline, recording = make_pipeline(options), _recording(options)
    named = list(zip(files, result_names(files), strict=True))
    results, failed = [], 0
    aligned = partial(_align, pipeline, options)
    with closing(pipeline.each(aligned, named) if len(files) > 1 else (aligned(each) for each in named)) as each_result:
        bar = tqdm(each_result, total=len(files), unit="image", disable=len(files) == 1 or None, file=sys.stderr)
        for n, ((_, name), done) in enumerate(zip(named, bar, strict=True)):
            if isinstance(done, SemAlign3DError):
                failed += 1
                tqdm.write(f"semalign3d align: {done}", file=sys.stderr)
                continue
            found, result = done
            if recording is not None:
                recording.add(found.evidence, found.alignment, float(n))
            results.append((name, result))
            tqdm.write(_summary(result, options.output / f"{name}.align.json"), file=sys.stdout)
    if recording is not None:
        recording.close()
    _write_index(results, options)
    if failed and len(files) > 1:
        print(f"semalign3d align: {failed} of {len(files)} images could not be aligned", file=sys.stderr)
    return 1 if failed else 0


def _write_index(results, options):
    """With several images ``--viz`` is a list of their pages."""
    if options.viz is None or options.viz.suffix.lower() != ".html" or _single(options) or not results:
        return
    from html import escape

    from semalign3d_core.pages.html import page

    rows = (
        f'<li><a href="{escape(_viz_path(options, name).name)}">{escape(name)}</a>: {"found" if result["found"] else "not found"}, '
        f"confidence {result['confidence']:.2f}</li>"
        for name, result in sorted(results, key=lambda item: item[1]["confidence"])
    )
    title = f"{results[0][1]['category']}: {len(results)} images, the least sure first"
    write_text(options.viz, page(title, f"<h1>{escape(title)}</h1><ul>{''.join(rows)}</ul>"))


def _align(pipeline, options, named):
    """Result and its numbers of an image, all files written; the error where it could not be aligned."""
    file, name = named
    try:
        image = read_input(file, options.dataset)
        start = time.perf_counter()
        found = pipeline.process(image, camera=parse_camera(options.camera, image), box=parse_box(options.boxes, image))
        result = {**found.to_dict(), "seconds": round(time.perf_counter() - start, 4)}
        write_json(options.output / f"{name}.align.json", result)
        found.draw(options.output / f"{name}.align.png")
        if options.viz is not None:
            _visualise(pipeline, found, _viz_path(options, name), options.mapper)
    except SemAlign3DError as error:
        return error
    return found, result


def _recording(options):
    if options.rerun is None:
        return None
    from semalign3d_core.export.rerun import RerunLog

    check_replaceable(options.rerun)
    return RerunLog(options.rerun)


def _single(options):
    return len(options.images) == 1 and not options.images[0].is_dir()


def _viz_path(options, name):
    return options.viz if _single(options) else options.viz.with_name(f"{options.viz.stem}_{name}{options.viz.suffix}")


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
    from semalign3d_core.visualization.sphere import sphere_pictures

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
