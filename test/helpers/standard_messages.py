"""Builds the messages of tf2_msgs and vision_msgs that the node uses; the packages are not on PyPI.

``python standard_messages.py FOLDER`` writes and builds a workspace there; source its install/setup.bash. Needs the wheels of rosidl.
"""

import os
import subprocess
import sys
from pathlib import Path

CMAKE = """cmake_minimum_required(VERSION 3.21)
project({name})
find_package(ament_cmake REQUIRED)
find_package(rosidl_default_generators REQUIRED)
find_package(std_msgs REQUIRED)
find_package(geometry_msgs REQUIRED)
rosidl_generate_interfaces(${{PROJECT_NAME}} {files} DEPENDENCIES std_msgs geometry_msgs)
include({fix})
drop_missing_includes()
ament_package()
"""
PACKAGE = """<package format="3"><name>{name}</name><version>0.0.0</version><description>For tests</description>
<maintainer email="tests@example.org">tests</maintainer><license>Apache-2.0</license>
<buildtool_depend>ament_cmake</buildtool_depend><buildtool_depend>rosidl_default_generators</buildtool_depend>
<depend>std_msgs</depend><depend>geometry_msgs</depend><member_of_group>rosidl_interface_packages</member_of_group>
<export><build_type>ament_cmake</build_type></export></package>
"""
MESSAGES = {
    "tf2_msgs": {"TFMessage": "geometry_msgs/TransformStamped[] transforms"},
    "vision_msgs": {
        "Point2D": "float64 x\nfloat64 y",
        "Pose2D": "Point2D position\nfloat64 theta",
        "BoundingBox2D": "Pose2D center\nfloat64 size_x\nfloat64 size_y",
        "BoundingBox3D": "geometry_msgs/Pose center\ngeometry_msgs/Vector3 size",
        "ObjectHypothesis": "string class_id\nfloat64 score",
        "ObjectHypothesisWithPose": "ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose",
        "Detection2D": "std_msgs/Header header\nObjectHypothesisWithPose[] results\nBoundingBox2D bbox\nstring id",
        "Detection2DArray": "std_msgs/Header header\nDetection2D[] detections",
        "Detection3D": "std_msgs/Header header\nObjectHypothesisWithPose[] results\nBoundingBox3D bbox\nstring id",
        "Detection3DArray": "std_msgs/Header header\nDetection3D[] detections",
    },
}


def build(folder: Path) -> Path:
    """Writes and builds the workspace unless it is there; returns the file to source."""
    folder = folder.resolve()
    setup = folder / "install" / "setup.bash"
    if setup.is_file():
        return setup
    fix = Path(__file__).parents[2] / "cmake" / "exported_includes.cmake"
    for name, messages in MESSAGES.items():
        (folder / "src" / name / "msg").mkdir(parents=True, exist_ok=True)
        for message, text in messages.items():
            (folder / "src" / name / "msg" / f"{message}.msg").write_text(text + "\n")
        files = " ".join(f"msg/{message}.msg" for message in messages)
        (folder / "src" / name / "CMakeLists.txt").write_text(CMAKE.format(name=name, files=files, fix=fix))
        (folder / "src" / name / "package.xml").write_text(PACKAGE.format(name=name))
    environment = dict(os.environ, AMENT_PREFIX_PATH=sys.prefix, PATH=os.pathsep.join([f"{sys.prefix}/bin", os.environ["PATH"]]))
    command = [f"{sys.prefix}/bin/colcon", "build", "--event-handlers", "console_cohesion-", "--cmake-args", "-DBUILD_TESTING=OFF"]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return setup


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
