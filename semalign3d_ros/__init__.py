"""ROS 2 layer of SemAlign3D; the generated messages live in ``semalign3d_ros.msg`` once the package is built."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
