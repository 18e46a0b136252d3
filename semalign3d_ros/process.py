"""Running a node as a process: exit codes, signals and missing pieces, the same for every node."""

import importlib
import signal
import sys

from semalign3d_core.errors import SemAlign3DError

BUILD_HINT = (
    "{name} is not installed. Build the package and source it in this shell: "
    "colcon build && . install/setup.bash   (or, after make setup: . scripts/env.sh)"
)


def run_node(module_name):
    """Imports ``semalign3d_ros.<module_name>``, calls its ``main(arguments)`` and exits with its return value.

    SIGINT and SIGTERM end the process with exit code 0 at any moment, also while it is still starting. Errors meant for
    the user are one line on stderr and exit code 1.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))  # until rclpy installs its own handlers
    try:
        code = importlib.import_module(f"semalign3d_ros.{module_name}").main(sys.argv)
    except KeyboardInterrupt:
        code = 0
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith(("semalign3d_ros", "rclpy", "sensor_msgs", "std_msgs")):
            raise
        code = _fail(module_name, BUILD_HINT.format(name=error.name))
    except SemAlign3DError as error:
        code = _fail(module_name, error)
    sys.exit(code)


def _fail(module_name, message):
    print(f"{module_name}: {message}", file=sys.stderr)
    return 1
