"""Fetch a published data set, unpack it and check every file; without --download or --source only say what it is."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from semalign3d_core.runtime.errors import choice


@dataclass
class Options:
    """Options of ``semalign3d data``."""

    name: tyro.conf.Positional[str] = ""
    """spair71k, spair_u, ap10k, pf_pascal, pf_willow or caltech101. Default: list them."""
    output: Path = Path("data")
    """Folder to unpack into: OUTPUT/SPair-71k and so on."""
    download: bool = False
    """Fetch it from its official address. An interrupted download goes on where it stopped."""
    source: str = ""
    """Local copy (a file, or a folder that holds all of them), or address of a folder of another server."""
    partial: bool = False
    """Accept another number of files than published."""


def run(options: Options) -> int:
    """Says what there is, or fetches and checks."""
    from semalign3d_core.datasets.fetching import RECORD, check, described, fetch
    from semalign3d_core.datasets.published import PUBLISHED

    if not options.name:
        print("\n".join(line for name, data in PUBLISHED.items() for line in described(name, data)))
        return 0
    data = choice("data set", options.name, PUBLISHED)
    print("\n".join(described(options.name, data)))
    if (options.output / f"{data.folder}{RECORD}").is_file() and not (options.download or options.source):
        print(f"{options.output / data.folder}: all {check(data, options.output, options.partial)} files are as they were unpacked")
        return 0
    if not (options.download or options.source):
        print(f"nothing was fetched: add --download, or --source FILE with a copy; goes to {options.output / data.folder}")
        return 0
    folder = fetch(data, options.output, options.source, options.partial)
    print(f"{folder}: complete; every file is recorded, the same command without --download checks them again")
    return 0
