"""Make a data set folder from COCO keypoint JSON (CVAT, Label Studio ...) or from a plain folder with a CSV or JSON file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from semalign3d_core.datasets.importing import ImportReport
from semalign3d_core.runtime.errors import InputError

SHOWN = 8  # reasons printed; all are in import_report.json


@dataclass
class Options:
    """Options of ``semalign3d import``."""

    annotations: tyro.conf.Positional[Path] = tyro.MISSING
    """COCO keypoint JSON, or a CSV or JSON file with the keypoints of plain images."""
    output: Path = tyro.MISSING
    """Data set folder to write, or to add to."""
    images: Path | None = None
    """Folder of the images (searched with its subfolders). Default: the folder of the annotations."""
    category: str = ""
    """Name of the category in the data set. Plain files need one; for COCO files it renames the only category taken."""
    take: tuple[str, ...] = ()
    """COCO: categories of the file to take. Default: all that have keypoints."""
    left_right: str = ""
    """Left/right pairs, where neither the file nor names like left_eye, eye_l, EyeLeft show them: "arm_a:arm_b fin_1:fin_2"."""
    split: float = 0.3
    """Share of the images that are kept for the split test. The others are the split trn, from which build makes models. 0: no splits."""
    pairs: int = 400
    """At most so many pairs of images per split, for eval_spair."""
    hidden: Literal["drop", "keep"] = "drop"
    """COCO: keypoints marked as labelled but hidden (v = 1)."""
    objects: Literal["largest", "each"] = "largest"
    """COCO: which object of several in an image to take: the one with most visible keypoints (then largest box), or each."""
    masks: Path | None = None
    """Folder with <image name>.png, above 0 is object (of several labels or colours that of the category in labelmap.txt, else the one
    under most keypoints). Default: the polygons and run lengths of a COCO file, if it has any."""
    frame: Literal["auto", "stored", "displayed"] = "auto"
    """How images that EXIF data turn were annotated: as they are stored, or as they are displayed; auto: as the file says."""
    on_bad_input: Literal["skip", "error"] = "skip"
    """What happens to missing or damaged images and to keypoints outside the image: skipped and listed, or an error."""


def run(options: Options) -> int:
    """Imports, prints what was taken and left out, and writes import_report.json into the data set folder."""
    from semalign3d_core.datasets.left_right import parse_pairs
    from semalign3d_core.datasets.splitting import write_splits
    from semalign3d_core.runtime.files import write_json

    images, pairs = options.images or options.annotations.parent, parse_pairs(options.left_right)
    if not 0 <= options.split < 1:
        raise InputError(f"--split {options.split} must be a share of the images, from 0 to less than 1")
    report = _import_coco(options, images, pairs) if _is_coco(options.annotations) else _import_table(options, images, pairs)
    splits = {category: write_splits(options.output, category, options.split, options.pairs) for category in report.written}
    content = {"written": dict(report.written), "keypoints": report.keypoints, "splits": splits}
    content |= {"skipped": report.skipped, "remarks": report.remarks}
    write_json(options.output / "import_report.json", content)
    print("\n".join([summary(options.output, report), *_split_lines(splits)]))
    return 0 if report.written.total() else 1


def summary(output: Path, report: ImportReport) -> str:
    """What an import did, as text."""
    lines = []
    for category, counts in report.keypoints.items():
        lines.append(f"{category}: {report.written[category]} images -> {output}")
        lines += [f"  {name:28s} {count:5d} images" for name, count in counts.items()]
    lines += [f"remark: {text}" for text in report.remarks]
    if report.skipped:
        lines.append(f"left out: {len(report.skipped)} (all in {output / 'import_report.json'})")
        lines += [f"  {reason}" for reason in report.skipped[:SHOWN]]
    return "\n".join(lines)


def _split_lines(splits):
    for category, found in splits.items():
        parts = [f"{split} {images} images, {pairs} pairs" for split, (images, pairs) in found.items()]
        yield f"{category}: splits {'; '.join(parts)}" if parts else f"{category}: no splits; build takes all images"


def _is_coco(path):
    from semalign3d_core.runtime.files import read_json

    if path.suffix.lower() != ".json":
        return False
    content = read_json(path)
    return isinstance(content, dict) and bool({"annotations", "categories"} & set(content))


def _import_coco(options, images, pairs):
    from semalign3d_core.datasets.import_coco import CocoOptions, import_coco

    coco = CocoOptions(
        options.take, options.category, pairs, options.hidden, options.objects, options.on_bad_input, options.masks, options.frame
    )
    return import_coco(options.annotations, images, options.output, coco)


def _import_table(options, images, pairs):
    from semalign3d_core.datasets.import_table import import_table

    if not options.category:
        raise InputError(f"{options.annotations} names no category; give one with --category NAME")
    return import_table(
        options.annotations, images, options.output, options.category, pairs, options.masks, options.on_bad_input, options.frame
    )
