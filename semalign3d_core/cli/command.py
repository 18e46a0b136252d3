"""How every command runs: options from its dataclass, errors in one line, Ctrl-C with its exit code."""

import contextlib
import dataclasses
import importlib
import io
import os
import signal
import sys
import threading

from semalign3d_core.runtime import plugins
from semalign3d_core.runtime.errors import InputError, OutputError, SemAlign3DError, UnreadableError
from semalign3d_core.runtime.outputs import guarded

AGAIN = 8.0  # seconds after which a command that Ctrl-C has not ended is interrupted once more


def run_command(module_name: str, arguments: list[str], program: str) -> int:
    """Parses ``arguments`` into the module's ``Options`` and runs it."""
    interrupted = f"{program}: interrupted; what is finished is kept, run the same command again to go on"

    def end_at_once(*_: object) -> None:
        os.write(2, f"{interrupted}\n".encode())
        os._exit(130)

    signal.signal(signal.SIGINT, end_at_once)  # while modules load, an exception may be lost in whatever is being imported
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may be no UTF-8, terminals may know less
    if os.environ.get("NO_COLOR"):
        os.environ["TERM"] = "dumb"  # which the help understands
    try:
        import tyro

        module = importlib.import_module(module_name)
        arguments = _load_plugins(arguments)
        overwrite = "--overwrite" in arguments
        if "overwrite" not in {field.name for field in dataclasses.fields(module.Options)}:
            arguments = [argument for argument in arguments if argument != "--overwrite"]
        options = tyro.cli(module.Options, args=arguments, prog=program, description=module.__doc__)
        with guarded(overwrite), _interruptible():
            code = module.run(options) or 0
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return code
    except SemAlign3DError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1 if isinstance(error, OutputError | UnreadableError) else 2
    except MemoryError:
        print(f"{program}: not enough memory; use smaller images, fewer workers or another backbone", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one must not show how this one ends
        print(interrupted, file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read the output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains once more when it ends
        return 128 + signal.SIGPIPE
    except OSError as error:  # a folder that cannot be read or entered, a disk that fails
        where = f"{error.filename}: " if error.filename is not None else ""
        print(f"{program}: {where}{error.strerror or error}; check the disk and that you may read and write there", file=sys.stderr)
        return 1


@contextlib.contextmanager
def _interruptible():
    """Raises :class:`KeyboardInterrupt` at Ctrl-C, whatever the block makes of it: libraries take it for an import that failed.

    It is raised once more later where one of them goes on, and in the end where one of them has turned it into an error.
    """
    came: list[bool] = []

    def interrupt(*_: object) -> None:
        came.append(True)
        again = threading.Timer(AGAIN, os.kill, (os.getpid(), signal.SIGINT))
        again.daemon = True
        again.start()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except Exception as error:
        if came:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)


def _load_plugins(arguments: list[str]) -> list[str]:
    """Loads what ``--plugin`` names, which every command takes any number of times; returns the other arguments."""
    rest, waiting = [], iter(arguments)
    for argument in waiting:
        name, equals, value = argument.partition("=")
        if name != "--plugin":
            rest.append(argument)
            continue
        value = value if equals else next(waiting, "")
        if not value:
            raise InputError("--plugin needs the name of a module, or a Python file")
        plugins.load(value)
    return rest
