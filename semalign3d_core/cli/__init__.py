"""Command line."""

import os
import signal
import sys

PROGRAMS = ("semalign3d", "eval_spair")


def _end(*_: object) -> None:
    os.write(2, b"interrupted before it began\n")
    os._exit(130)


if os.path.basename((sys.argv or [""])[0]) in PROGRAMS:  # not where a program of somebody else imports this
    signal.signal(signal.SIGINT, _end)  # until the command takes over: raised while modules load, an exception may be lost
