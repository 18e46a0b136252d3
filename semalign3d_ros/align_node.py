"""The node ``align``: camera images in; named keypoints, correspondences to a demonstration image and pose out.

It is a plain node that works from its start, or with ``--lifecycle`` a managed one that reads its models when it
is configured and processes images while it is active. What it consists of is wired in :mod:`semalign3d_ros.session`.
"""

from typing import Any

from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.node import Node

from semalign3d_core.runtime.errors import SemAlign3DError
from semalign3d_ros.process import spin, take_time
from semalign3d_ros.session import Session

NAME, NAMESPACE = "align", "semalign3d"
LIFECYCLE = "--lifecycle"


class AlignNode(Node):
    """See the module; all topics are relative, in the namespace ``semalign3d`` unless remapped."""

    exit_code = 0

    def __init__(self, **options: Any) -> None:
        super().__init__(NAME, namespace=NAMESPACE, **options)
        self.session = Session(self)

    def close(self) -> None:
        """Ends the worker after the frame it is at, and the node."""
        self.session.close()
        self.destroy_node()


class ManagedAlignNode(LifecycleNode):
    """The same as a managed node."""

    exit_code = 0

    def __init__(self, **options: Any) -> None:
        super().__init__(NAME, namespace=NAMESPACE, **options)
        self.session: Session | None = None

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        """Reads parameters and models; fails, and says why, where they cannot be used."""
        take_time()
        try:
            self.session = Session(self, enabled=False)
        except SemAlign3DError as error:
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        """Images are processed from now on."""
        assert self.session is not None
        self.session.enabled = True
        return super().on_activate(state)

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        """Images are ignored from now on."""
        assert self.session is not None
        self.session.enabled = False
        return super().on_deactivate(state)

    def on_cleanup(self, state: Any) -> TransitionCallbackReturn:
        """Takes all topics away and lets go of the models."""
        self._end_session()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: Any) -> TransitionCallbackReturn:
        """As :meth:`on_cleanup`."""
        return self.on_cleanup(state)

    def close(self) -> None:
        """Ends the node in whatever state it is."""
        self._end_session()
        self.destroy_node()

    def _end_session(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            session.close()


def main(arguments: list[str] | None = None) -> int:
    """Runs the node; see :func:`semalign3d_ros.process.run_node`."""
    managed = LIFECYCLE in (arguments or [])
    return spin(arguments, ManagedAlignNode if managed else AlignNode)
