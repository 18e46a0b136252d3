"""``semalign3d <command>``: one module per command, each with a dataclass ``Options`` and a function ``run(options)``."""

import difflib
import sys

from semalign3d_core.cli.command import run_command

# command -> (module of semalign3d_core.cli, one line for the overview)
COMMANDS = {
    "align": ("align", "find the named keypoints of an object in images, in pixels and in 3D"),
    "match": ("match", "find points of one image in another"),
    "build": ("build", "build the model of a category from annotated images"),
    "pose": ("pose", "say from which side an object is seen, by comparing it with template images"),
    "imd": ("imd", "show how different the objects of two images are, part by part"),
    "sphere": ("sphere", "write a page that shows images on the sphere of a trained mapper"),
    "synth": ("synth", "render a synthetic data set"),
    "train": ("train", "train one of the networks: compact, geoaware, spherical_maps, sfnet"),
    "inspect": ("inspect", "write a page that shows what a category model holds"),
    "import": ("import_annotations", "make a data set folder from annotated images (COCO keypoints, tables, folders)"),
    "data": ("data", "fetch a published data set and check every file of it"),
    "reproduce": ("reproduce", "reproduce a published table from nothing"),
    "evaluate": ("eval_spair", "score methods on a data set (the same as eval_spair)"),
    "compare": ("compare", "compare evaluations of the same pairs, with intervals of their differences"),
    "doctor": ("doctor", "say what is installed, which weights are present, and what to do about the rest"),
    "config": ("config", "write a preset with all its values"),
}


def overview() -> str:
    """The commands, a line each."""
    lines = ["usage: semalign3d <command> [options]     (semalign3d <command> --help shows the options)", ""]
    lines += [f"  {name:10s} {text}" for name, (_, text) in COMMANDS.items()]
    lines += ["", "Every command also takes --plugin MODULE (or FILE.py): your own backbones, matchers, data sets;"]
    return "\n".join([*lines, "and --overwrite: results may replace files of another kind (never an input of the command)"])


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code; errors meant for the user are printed without a traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["--version"]:
        from semalign3d_core.runtime.version import __version__

        print(f"semalign3d {__version__}")
        return 0
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return 0 if arguments else 2
    if arguments[0] not in COMMANDS:
        near = difflib.get_close_matches(arguments[0], COMMANDS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(f"semalign3d: unknown command {arguments[0]!r}{hint}\n\n{overview()}", file=sys.stderr)
        return 2
    if arguments[0] == "train":
        from semalign3d_core.cli.train import main as train

        return train(arguments[1:])
    return run_command(f"semalign3d_core.cli.{COMMANDS[arguments[0]][0]}", arguments[1:], f"semalign3d {arguments[0]}")


if __name__ == "__main__":
    sys.exit(main())
