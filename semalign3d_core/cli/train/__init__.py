"""``semalign3d train <system>``: one module per trained system, each with a dataclass ``Options`` and a function ``run(options)``."""

import sys

# system -> (module, one line for the overview)
SYSTEMS = {
    "compact": ("semalign3d_core.cli.train.compact", "the embedded backbone, on the synthetic categories"),
    "spherical_maps": ("semalign3d_core.cli.train.spherical_maps", "a mapper of features to a sphere that tells sides apart"),
    "geoaware": ("semalign3d_core.cli.train.geoaware", "a post-processor that makes features tell left from right"),
    "sfnet": ("semalign3d_core.cli.train.sfnet", "SFNet: dense correspondence, from pictures with masks"),
}


def overview() -> str:
    """The systems that can be trained, a line each."""
    lines = ["usage: semalign3d train <system> [options]     (semalign3d train <system> --help shows the options)", ""]
    return "\n".join(lines + [f"  {name:15s} {text}" for name, (_, text) in SYSTEMS.items()])


def main(arguments: list[str]) -> int:
    """Trains one system and returns the exit code."""
    from semalign3d_core.cli.command import run_command

    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return 0 if arguments else 2
    if arguments[0] not in SYSTEMS:
        print(f"semalign3d train: unknown system {arguments[0]!r}\n\n{overview()}", file=sys.stderr)
        return 2
    return run_command(SYSTEMS[arguments[0]][0], arguments[1:], f"semalign3d train {arguments[0]}")
