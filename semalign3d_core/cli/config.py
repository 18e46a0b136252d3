"""Write a preset with all its values, as a start for one's own."""

from dataclasses import dataclass
from pathlib import Path

from semalign3d_core.runtime.config import preset_folder
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.files import write_text
from semalign3d_core.runtime.outputs import MARK, check_replaceable


@dataclass
class Options:
    """Options of ``semalign3d config``."""

    preset: str = ""
    """Preset to write, for example align_fast. Default: list them all."""
    output: Path | None = None
    """File to write. Default: print it."""


def run(options: Options) -> int:
    """Lists the presets, or writes one with all its values."""
    presets = {path.stem: path for path in sorted(preset_folder().glob("*.yaml"))}
    if not options.preset:
        print("\n".join(presets))
        return 0
    if options.preset not in presets:
        raise InputError(f"unknown preset {options.preset!r}: choose one of {', '.join(presets)}")
    text = presets[options.preset].read_text(encoding="utf-8")
    if options.output is None:
        print(text, end="")
    else:
        check_replaceable(options.output)
        write_text(options.output, f"# {options.preset}, a preset of {MARK.decode()}\n{text}")
    return 0
