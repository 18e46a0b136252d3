"""Ctrl-C in the first moments of a command; imported before everything else, because modules take seconds to load."""

import os
import sys
from _signal import SIGINT, signal  # what "signal" wraps, without the modules that it loads

PROGRAMS = ("semalign3d", "eval_spair")


def _end(*_: object) -> None:
    os.write(2, b"interrupted before it began\n")
    os._exit(130)


if os.path.basename((sys.argv or [""])[0]) in PROGRAMS:  # not where a program of somebody else imports this
    signal(SIGINT, _end)  # until the command takes over: raised while modules load, an exception may be lost
