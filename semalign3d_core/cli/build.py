"""Build the model of one or several categories from an annotated data set folder."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from semalign3d_core.calibration.recipe import BuildOptions, Built, build_one
from semalign3d_core.category.model import CategoryModel
from semalign3d_core.category.progress import Progress
from semalign3d_core.runtime.errors import InputError, SemAlign3DError

Options = BuildOptions


def run(options: Options) -> int:
    """Builds all categories; with several, one that fails does not stop the others."""
    from tqdm.contrib.logging import logging_redirect_tqdm

    from semalign3d_core.datasets import open_dataset

    logging.basicConfig(format="%(levelname)s: %(message)s")
    failed, categories = [], options.category or tuple(open_dataset(options.dataset).categories())
    for category in categories:
        try:
            with logging_redirect_tqdm(), _progress_bar(category) as progress:
                built = build_one(options, category, progress=progress)
            show(built)
        except SemAlign3DError as error:
            if len(categories) == 1:
                raise
            print(f"{category}: not built: {error}")
            failed.append(category)
    if failed:
        raise InputError(f"{len(failed)} of {len(categories)} categories could not be built: {', '.join(failed)}; reasons above")
    return 0


def show(built: Built) -> None:
    """Prints what there is to say of a finished build."""
    from semalign3d_core.category.report import DEPTH_HELPS
    from semalign3d_core.perception.masks.at_hand import AtHandMasks
    from semalign3d_core.visualization.inspect_report import images_to_look_at

    lines = [summary(built.model.category, built.path, built.model, built.report)]
    if built.providers.depth is None:
        lines.append(f"  no depth maps: the shape comes from the views alone; {DEPTH_HELPS}")
    if isinstance(built.providers.segmenter, AtHandMasks):
        lines.append(f"  masks at hand: {built.providers.segmenter.told()}")
    print("\n".join([*lines, *images_to_look_at(built.model, built.report)]))


def summary(category: str, path: Path, model: CategoryModel, report: dict[str, Any]) -> str:
    """Two lines about a finished build, and its warnings."""
    errors = sorted(image["reprojection_error_relative"] for image in report["images"])
    lines = [
        f"{category}: {path}  ({len(report['images'])} images, {int(model.present.sum())} keypoints, {len(model.weights)} dense points)",
        f"  start {report['start']}, view diversity {report.get('diversity', float('nan')):.2f}, "
        f"median reprojection error {100 * errors[len(errors) // 2]:.2f} % of the object",
    ]
    if report["skipped_images"]:
        lines.append(f"  {len(report['skipped_images'])} images left out; reasons in {path.stem}.report.json")
    if report["dropped_keypoints"]:
        lines.append(f"  keypoints dropped in {len(report['dropped_keypoints'])} images; reasons in {path.stem}.report.json")
    return "\n".join(lines + [f"  warning: {text}" for text in report["warnings"][:5]])


@contextmanager
def _progress_bar(category: str) -> Iterator[Progress]:
    """A bar on standard error, for one step after the other."""
    from tqdm import tqdm

    with tqdm(total=1, desc=category, file=sys.stderr, leave=False, disable=None) as bar:
        shown = ""

        def show(step: str, done: int, total: int) -> None:
            nonlocal shown
            if step != shown:  # its rate is that of this step alone
                bar.reset(total)
                shown = step
            bar.set_description(f"{category}: {step}", refresh=False)
            bar.total, bar.n = total, done
            bar.refresh()

        yield show
