"""Put finished evaluations of the same pairs beside each other: differences with intervals, winners, pictures."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from semalign3d_core.runtime.errors import InputError


@dataclass
class Options:
    """Options of ``semalign3d compare``."""

    runs: tyro.conf.Positional[tuple[str, ...]] = ()
    """Output folders of eval_spair, of methods or of --predictions: FOLDER, or NAME=FOLDER; differences are to the first."""
    output: Path = Path("out/compare")
    """Folder for compare.html, compare.json and compare.csv."""
    dataset: Path | None = None
    """Data set folder. Default: where it was when the first run was made."""
    pictures: int = 8
    """Pairs to show, those on which the runs differ most."""


def run(options: Options) -> int:
    """Compares, writes the files and prints the table."""
    from semalign3d_core.evaluation.compare.differences import compare_runs
    from semalign3d_core.evaluation.compare.page import COLUMNS, compare_page, rows, terminal_table
    from semalign3d_core.evaluation.compare.runs import read_runs
    from semalign3d_core.evaluation.keypoints.results import csv_text
    from semalign3d_core.runtime.files import write_json, write_text

    if len(options.runs) < 2:
        raise InputError("give the output folders of at least two evaluations: semalign3d compare out/a out/b")
    runs = read_runs(options.runs, options.dataset)
    comparison = compare_runs(runs)
    write_json(options.output / "compare.json", comparison)
    write_text(options.output / "compare.csv", csv_text(COLUMNS, rows(comparison)))
    write_text(options.output / "compare.html", compare_page(runs, comparison, options.pictures))
    print(terminal_table(comparison))
    print(f"\nwritten to {options.output}: compare.html compare.json compare.csv")
    return 0
