"""Find points of one image in another: by features alone, or through the model of a category (--category, --model)."""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from semalign3d_core.cli.inputs import MethodOptions, make_pipeline, parse_box, parse_camera, parse_points, read_input
from semalign3d_core.cli.results import match_table
from semalign3d_core.export.plain import matches_to_list
from semalign3d_core.matching import lattice, match, match_frames, returning
from semalign3d_core.results import write_picture
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.files import write_json


@dataclass(frozen=True)
class Options(MethodOptions):
    """Options of ``semalign3d match``."""

    source: tyro.conf.Positional[Path] = tyro.MISSING
    """Image in which the points are given."""
    target: tyro.conf.Positional[Path] = tyro.MISSING
    """Image in which they are searched for."""
    points: str = ""
    """Pixels of the source: "120,80 200,95". Default: points at equal distances, of which those are kept that return to where they were."""
    transfer: str = "fast"
    """Preset of the transfer: fast (points anywhere), keypoints (points are annotated keypoints), reference, or a YAML file."""
    matcher: str = "window_soft_argmax"
    """Matcher of features, where neither --model nor --category is given."""
    network: str = ""
    """Match by the dense flow of this trained SFNet instead of a category model (a file that semalign3d train sfnet wrote)."""
    source_mask: Path | None = None
    """Mask of the source's object, which is transferred to the target, too; with --network."""
    output: Path = Path("out")
    """Folder for SOURCE_TARGET.match.json and the side-by-side picture SOURCE_TARGET.match.png."""


def run(options: Options) -> int:
    """Matches by a trained network if one is given, by a category model if one is given, else by features alone."""
    if options.network:
        return _match_by_network(options)
    images = [read_input(path, options.dataset) for path in (options.source, options.target)]
    texts = options.boxes.split() if "," in options.boxes else [options.boxes]  # else a file, whose name may hold spaces
    if len(texts) > len(images):
        raise InputError(f"--boxes {options.boxes!r}: give one box for both images, or two with a space between them")
    boxes = tuple(parse_box(text, image) for text, image in zip((*texts, *texts), images, strict=False))
    points = parse_points(options.points, images[0]) if options.points else lattice(images[0], boxes[0])
    found = (
        _by_features(options, images, points, boxes)
        if options.model is None and not options.category
        else _by_model(options, images, points, boxes)
    )
    found = found if options.points else returning(found, boxes[0])
    name = f"{options.source.stem}_{options.target.stem}"
    result = found.to_dict()
    write_json(options.output / f"{name}.match.json", result)
    found.draw(options.output / f"{name}.match.png")
    print(f"{match_table(result['matches'])}\n-> {options.output / name}.match.json, .match.png")
    return 0


def _by_features(options, images, points, boxes):
    from semalign3d_core.perception import backbones
    from semalign3d_core.perception.backbones.precision import choose_device
    from semalign3d_core.perception.providers import on_device

    spec = on_device(options.backbone, backbones.BACKBONES, choose_device(options.device))
    backbone = backbones.create(spec, options.dataset)
    source, target = images
    return match(source, target, points, matcher=options.matcher, backbone=backbone, boxes=boxes)


def _by_model(options, images, points, boxes):
    pipeline = make_pipeline(options, options.transfer)
    cameras = [parse_camera(options.camera, image) for image in images]
    frames = [pipeline.process(image, camera=camera, box=box) for image, camera, box in zip(images, cameras, boxes, strict=True)]
    for image, frame in zip(images, frames, strict=True):
        if not frame.alignment.found:
            text = f"{frame.alignment.category} not found in {image.name} (confidence {frame.alignment.confidence:.2f})"
            print(f"semalign3d match: {text}: the matches are guesses", file=sys.stderr)
    return match_frames(pipeline, images, frames, torch.as_tensor(points))


def _match_by_network(options):
    """Carries the points through the network's flow, prints a table, writes JSON, the matches and the dense flow as pictures."""
    from semalign3d_core.matchers.sfnet import SFNetMatcher
    from semalign3d_core.perception.backbones.precision import choose_device
    from semalign3d_core.runtime.pictures import read_labels
    from semalign3d_core.visualization.flow import draw_dense_match
    from semalign3d_core.visualization.overlay import draw_matches

    images = [read_input(path, options.dataset) for path in (options.source, options.target)]
    points = parse_points(options.points, images[0])
    mask = None if options.source_mask is None else read_labels(options.source_mask) > 0
    if mask is not None and mask.shape != images[0].rgb.shape[:2]:
        raise InputError(f"{options.source_mask} has {mask.shape[::-1]} pixels, {options.source} {images[0].rgb.shape[1::-1]}")
    matcher = SFNetMatcher(options.network, choose_device(options.device))
    with torch.no_grad():
        source, target = (matcher.look(image) for image in images)
        matches = matcher.match(source, target, torch.as_tensor(points))
        grid = matcher.flow(target, source)  # of the target's pixels: where each is in the source
        back = matcher.match(target, source, matches.points).points
    cycle = (back.cpu() - torch.as_tensor(points)).norm(dim=1)
    result = {"method": "sfnet", "network": options.network, **matcher.settings, "source": {"image": images[0].name}}
    result |= {"target": {"image": images[1].name}, "matches": matches_to_list(matches, points, cycle)}
    name = f"{options.source.stem}_{options.target.stem}"
    write_json(options.output / f"{name}.match.json", result)
    drawn = draw_matches(images[0].rgb, images[1].rgb, torch.as_tensor(points), matches, least_height=480)
    write_picture(options.output / f"{name}.match.png", drawn)
    write_picture(options.output / f"{name}.match.flow.png", draw_dense_match(images[0].rgb, images[1].rgb, grid, mask))
    print(f"{match_table(result['matches'])}\n-> {options.output / name}.match.json, .match.png, .match.flow.png")
    return 0
