"""Reproduce a published table from nothing: data, weights, features, depth, masks, models of all categories, evaluation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from semalign3d_core.perception.providers import ProviderOptions


@dataclass(frozen=True, kw_only=True)
class Options(ProviderOptions):
    """Options of ``semalign3d reproduce``."""

    name: tyro.conf.Positional[Literal["spair71k"]] = "spair71k"
    """What to reproduce: spair71k, the paper's Table 1."""
    output: Path = Path("out/reproduce")
    """Folder for models, results, cache and table1.html, .csv, .json; the same command goes on with what is there."""
    dataset: Path | None = None
    """Folder SPair-71k. Default: OUTPUT/data/SPair-71k, fetched with --download or --source."""
    download: bool = False
    """Fetch the data set from its official address."""
    source: str = ""
    """Local copy of the data set's archive, or address of a folder of another server."""
    quick: bool = False
    """20 training images and 25 pairs per category: shows in a fraction of the time that everything works."""
    backbone: str = "sd_dinov2"
    """Feature backbone; the paper's are those of GeoAware-SC: geoaware:FILE."""
    depth: str = "depth_anything_v2:small"
    """Depth source."""
    masks: str = "precomputed"
    """Mask source; those of SPair-71k itself are precomputed."""
    preset: str = "em"
    """How models are built: em, reference, or path of a YAML file."""
    engine: Literal["local", "ray"] = "local"
    """Where the work runs: processes of this machine, or a Ray cluster (extra "ray")."""
    workers: int = 1
    """Processes."""


def run(options: Options) -> int:
    """Says what it will take, does what is missing and prints the table."""
    from semalign3d_core.datasets.fetching import fetch
    from semalign3d_core.datasets.published import PUBLISHED
    from semalign3d_core.evaluation.reproduction import Plan, estimate, reproduce, terminal_table
    from semalign3d_core.runtime.errors import MissingFileError

    folder = options.dataset or options.output / "data" / PUBLISHED[options.name].folder
    if options.dataset is None and not folder.is_dir():
        if not (options.download or options.source):
            raise MissingFileError(f"{folder} does not exist: add --download, --source FILE with the archive, or --dataset DIR")
        fetch(PUBLISHED[options.name], options.output / "data", options.source)
    plan = Plan(folder, options.output, options, options.quick, options.preset, options.engine, options.workers)
    for line in estimate(plan):
        print(line, flush=True)
    content = reproduce(plan)
    print(terminal_table(content))
    print(f"written to {options.output}: table1.html table1.csv table1.json; each method in a folder of its own")
    return 1 if content["failures"] else 0
