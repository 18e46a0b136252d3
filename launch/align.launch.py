"""Starts the node align, and on request an image source and RViz.

ros2 launch semalign3d_ros align.launch.py category:=bottle image:=/camera/color/image_raw camera_info:=/camera/color/camera_info
ros2 launch semalign3d_ros align.launch.py category:=chair source:=video.mp4 rviz:=true
"""

import os

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import IfElseSubstitution, LaunchConfiguration, NotEqualsSubstitution, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

INPUTS = ("image", "camera_info", "depth", "depth_camera_info", "mask", "detections")
PROFILE, FROM_PROFILE = "FASTRTPS_DEFAULT_PROFILES_FILE", "RMW_FASTRTPS_USE_QOS_FROM_XML"  # which profile; all that it says counts
RESPAWN_DELAY = 2.0  # seconds
# name -> (default, description)
ARGUMENTS = {
    "category": ("bottle", "category to look for: name of a model, or path of a model file"),
    "models": ("", "folder of category models; empty: only those that come with the package"),
    "demonstration": ("", "YAML file with a demonstration image and named points in it; empty: none"),
    "backbone": ("auto", "feature backbone; auto: the one that the category model was built with"),
    "diameter": ("0.0", "the object's diameter in metres, which gives metric positions without depth; 0: not known"),
    "objects": ("one", "one object, or all that the mask source finds"),
    "respawn": ("false", "start the nodes again when they end by themselves, for robots that run for weeks"),
    "lifecycle": ("false", "start as a managed node, which others configure and activate"),
    "shared_memory": ("true", "larger shared-memory segments, through which best-effort images travel whole"),
    "warm_start": ("false", "start from the alignment of the previous image instead of searching anew"),
    "namespace": ("semalign3d", "namespace of the node and of its topics"),
    "image": ("image", "topic of the camera images"),
    "image_transport": ("raw", "raw or compressed"),
    "camera_info": ("camera_info", "topic of the CameraInfo of the images"),
    "depth": ("depth", "topic of depth images registered to the images"),
    "depth_camera_info": ("depth_camera_info", "topic of the CameraInfo of depth images that are not aligned; as it is: beside them"),
    "mask": ("mask", "topic of masks of the object, or of labels of several"),
    "detections": ("detections", "topic of vision_msgs/Detection2DArray"),
    "parameters": (PathJoinSubstitution([FindPackageShare("semalign3d_ros"), "config", "align.yaml"]), "YAML file with further parameters"),
    "source": ("", "folder of images, image, video file, rosbag2 folder or webcam number to publish; empty: there is a camera already"),
    "focal_length": ("0.0", "focal length in pixels of the source; 0: not known"),
    "use_sim_time": ("false", "the time is that of /clock, which the source publishes if there is one"),
    "rviz": ("false", "start RViz with a view of the results"),
}


def text(name):
    """The argument as string parameter: without this, launch would read a webcam number or the category of a year as a number."""
    return ParameterValue(LaunchConfiguration(name), value_type=str)


def generate_launch_description():
    """See the module."""
    align = Node(
        package="semalign3d_ros",
        executable="align_node",
        arguments=[IfElseSubstitution(LaunchConfiguration("lifecycle"), "--lifecycle", "--plain")],
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            LaunchConfiguration("parameters"),
            {name: text(name) for name in ("category", "models", "demonstration", "backbone", "image_transport", "objects")},
            {name: ParameterValue(LaunchConfiguration(name), value_type=bool) for name in ("warm_start", "use_sim_time")},
            {"diameter": ParameterValue(LaunchConfiguration("diameter"), value_type=float)},
        ],
        remappings=[(topic, LaunchConfiguration(topic)) for topic in INPUTS],
        respawn=LaunchConfiguration("respawn"),
        respawn_delay=RESPAWN_DELAY,
        output="screen",
    )
    source = Node(
        package="semalign3d_ros",
        executable="image_source_node",
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            {name: text(name) for name in ("source", "image_transport")},
            {"focal_length": ParameterValue(LaunchConfiguration("focal_length"), value_type=float)},
            {"clock": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)},
        ],
        remappings=[(topic, LaunchConfiguration(topic)) for topic in ("image", "camera_info", "depth", "depth_camera_info")],
        condition=IfCondition(NotEqualsSubstitution(LaunchConfiguration("source"), "")),
        output="screen",
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", PathJoinSubstitution([FindPackageShare("semalign3d_ros"), "config", "align.rviz"])],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    arguments = [DeclareLaunchArgument(name, default_value=value, description=about) for name, (value, about) in ARGUMENTS.items()]
    profile = PathJoinSubstitution([FindPackageShare("semalign3d_ros"), "config", "fastdds_shared_memory.xml"])
    shared_memory = [
        SetEnvironmentVariable(name, value, condition=IfCondition(LaunchConfiguration("shared_memory")))
        for name, value in ((PROFILE, profile), (FROM_PROFILE, "1"))
    ]
    known = [] if os.environ.get(PROFILE) or os.environ.get(FROM_PROFILE) else shared_memory  # one of the user's own counts
    return LaunchDescription([*arguments, *known, align, source, rviz])
