"""Running a node as a process: exit codes, signals and missing pieces, the same for every node."""

import contextlib
import ctypes
import faulthandler
import importlib
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

BUILD_HINT = (
    "{name} is missing. Build the package and source it in this shell: colcon build && . install/setup.bash   "
    "(without a ROS installation: make setup && . scripts/env.sh)"
)
STUCK = 60.0  # seconds after which a node that does not come back to its messages ends itself
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of malloc.h
PROFILE, FROM_PROFILE = "FASTRTPS_DEFAULT_PROFILES_FILE", "RMW_FASTRTPS_USE_QOS_FROM_XML"  # of Fast DDS and its ROS layer
_spinning = threading.Event()  # a node is there, which a signal has to close
FROM_ROS = ("semalign3d_ros", "rclpy", "rcl_interfaces", "builtin_interfaces", "std_srvs")


def run_node(module_name: str) -> NoReturn:
    """Imports ``semalign3d_ros.<module_name>``, calls its ``main(arguments)`` and exits with what that returns.

    SIGINT and SIGTERM end the process with exit code 0 at any moment, also while it is still starting. Errors meant for
    the user are one line on stderr and exit code 1.
    """
    _return_memory()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Until rclpy installs its own handlers there is nothing to close; an exception may be lost in whatever is being imported.
        signal.signal(number, _leave)
    from semalign3d_core.runtime.errors import SemAlign3DError  # takes a second: after the handlers

    try:
        code = importlib.import_module(f"semalign3d_ros.{module_name}").main(sys.argv)
    except KeyboardInterrupt:
        code = 0
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in FROM_ROS and not package.endswith("_msgs"):
            raise
        code = _fail(module_name, BUILD_HINT.format(name=error.name))
    except SemAlign3DError as error:
        code = _fail(module_name, error)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a second signal must not change the exit code
    sys.exit(code)


def spin(arguments: list[str] | None, make_node: Callable[[], Any]) -> int:
    """Initialises ROS, spins ``make_node()`` until a signal or the node's own end, closes it; returns its ``exit_code``.

    All callbacks run in this thread. With several, rclpy waits in vain a dozen times per image until a callback has taken it, and that
    costs a node 6 ms of CPU time per image.
    """
    import rclpy
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

    _free_messages()
    rclpy.init(args=arguments)
    _spinning.set()
    node = None
    try:
        node = make_node()
        _spin(node, SingleThreadedExecutor())
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:  # shut down by another thread or a signal in the middle of a callback: rclpy has several errors for that
        if rclpy.ok():
            raise
    finally:
        faulthandler.cancel_dump_traceback_later()
        if node is not None:
            node.close()
        rclpy.try_shutdown()
    return 0 if node is None else node.exit_code


def _spin(node, executor):
    """Spins until the end. A callback that fails is logged: no message and no call ends a node, or another's answer.

    A callback, or a library, that does not come back ends the process, for whoever started it starts it again: Fast DDS can loop for
    ever over a message of a publisher that was killed, with the interpreter locked.
    """
    import rclpy
    from rclpy.executors import ExternalShutdownException

    executor.add_node(node)
    watched = -math.inf
    while rclpy.ok():
        if time.monotonic() > watched + 1:
            faulthandler.dump_traceback_later(STUCK, exit=True)
            watched = time.monotonic()
        try:
            executor.spin_once(timeout_sec=STUCK / 10)
        except (KeyboardInterrupt, ExternalShutdownException):
            raise
        except Exception as error:
            if not rclpy.ok():
                raise
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{place.filename}, line {place.lineno}"
            node.get_logger().error(f"a callback failed, going on: {type(error).__name__}: {str(error)[:500]} ({where})")


def take_time() -> None:
    """For callbacks that may load for long, weights from a hub for example: a node does not count as hanging until its loop goes on."""
    faulthandler.cancel_dump_traceback_later()


def answered(callback: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A service's ``callback(request, response)`` that answers with ``success`` False and the reason where it fails, whatever fails."""

    def call(request: Any, response: Any) -> Any:
        take_time()
        try:
            return callback(request, response)
        except Exception as error:
            from semalign3d_core.runtime.errors import SemAlign3DError
            from semalign3d_core.runtime.files import shown

            text = str(error) if isinstance(error, SemAlign3DError) else f"{type(error).__name__}: {shown(error)}"
            response.success, response.message = False, text
            return response

    return call


def _return_memory():
    """Tells the C library to give large blocks back: each thread's arena else keeps what its largest message needed (fuzzed: 170 MB)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # glibc has it
        for option, value in ((M_ARENA_MAX, 2), (M_MMAP_THRESHOLD, 4 << 20), (M_TRIM_THRESHOLD, 4 << 20)):
            mallopt(option, value)


def _free_messages():
    """Tells Fast DDS to free messages: its histories else keep the memory of the largest ones (fuzzed: 540 MB). A user's profile counts."""
    if PROFILE in os.environ or FROM_PROFILE in os.environ:
        return
    from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

    with contextlib.suppress(PackageNotFoundError):
        profile = os.path.join(get_package_share_directory("semalign3d_ros"), "config", "fastdds_memory.xml")
        if os.path.isfile(profile):
            os.environ.update({PROFILE: profile, FROM_PROFILE: "1"})


def _leave(*_):
    # rclpy's handlers call this one, too: a node ends by itself then, and closes what it writes.
    if not _spinning.is_set():
        os._exit(0)


def _fail(module_name, message):
    print(f"{module_name}: {message}", file=sys.stderr)
    return 1
