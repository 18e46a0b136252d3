"""Every row of the tables in docs/ros.md is true of the running node, and nothing of it is missing there."""

from dataclasses import fields
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("semalign3d_ros.action", reason="needs the built messages: make setup, . scripts/env.sh")

from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters  # noqa: E402
from standin import standin  # noqa: E402

from semalign3d_ros.declared import descriptors  # noqa: E402
from semalign3d_ros.interface import INPUTS, OUTPUTS, SERVICES, with_tables  # noqa: E402
from semalign3d_ros.parameters import AlignParameters  # noqa: E402

PAGE = Path(__file__).parents[2] / "docs" / "ros.md"


def installed(kind):
    package = kind.partition("/")[0]
    try:
        __import__(f"{package}.msg")
    except ImportError:
        return False
    return True


def cameras():
    """(camera, {role: topic}) of every row of the page's table of launch arguments."""
    rows = [line.split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ") and "image:=" in line]
    return [(row[1].strip(), dict(part.split(":=") for part in row[2].strip().strip("`").split())) for row in rows]


@pytest.mark.parametrize(("camera", "topics"), cameras())
def test_the_launch_arguments_of_cameras_reach_the_node(world, listener, start, camera, topics):
    launch = (PAGE.parents[1] / "launch" / "align.launch.py").read_text()
    assert all(f'    "{role}": ("{role}"' in launch for role in topics), "an argument of the launch file that is the remapping of a topic"
    node = start(standin("align_node"), world.parameters, [f"{role}:={topic}" for role, topic in topics.items()])

    def subscribed():
        return {name for name, _ in listener.node.get_subscriber_names_and_types_by_node("align", "/semalign3d")}

    listener.wait(lambda: ("align", "/semalign3d") in listener.node.get_node_names_and_namespaces(), "waited for the node", node)
    listener.wait(lambda: set(topics.values()) <= subscribed(), f"waited for the topics of {camera}", node)
    assert not {f"/semalign3d/{role}" for role in topics} & subscribed()
    assert node.stop() == 0


def test_the_page_shows_three_cameras():
    assert len(cameras()) >= 3


def test_the_page_holds_the_tables_of_the_code():
    page = PAGE.read_text(encoding="utf-8")
    assert with_tables(page) == page, "python -m semalign3d_ros.interface"


def test_the_security_policy_names_all_topics_and_services():
    policy = ElementTree.parse(PAGE.parents[1] / "config" / "sros2_policy.xml")
    allowed = {kind: {one.text for one in policy.iter(kind)} for kind in ("topic", "service", "action")}
    assert {*INPUTS, *OUTPUTS} <= allowed["topic"]
    assert set(SERVICES) <= allowed["service"] | allowed["action"]


def test_every_row_is_true_of_the_running_node(world, listener, start):
    node = start(standin("align_node"), world.parameters)
    listener.wait(lambda: "looking for" in node.output(), "waited for the node", node)

    def topics(getter):
        found = {name: kinds[0] for name, kinds in getter("align", "/semalign3d")}
        return {name.removeprefix("/semalign3d/"): kind for name, kind in found.items()}

    def expected(rows):
        return {name: kind for name, (kind, _) in rows.items() if installed(kind)}

    beside = {"/rosout": "rcl_interfaces/msg/Log", "/parameter_events": "rcl_interfaces/msg/ParameterEvent"}
    publishers, subscribers, services = (
        listener.node.get_publisher_names_and_types_by_node,
        listener.node.get_subscriber_names_and_types_by_node,
        listener.node.get_service_names_and_types_by_node,
    )
    known = listener.node.get_node_names_and_namespaces
    listener.wait(lambda: ("align", "/semalign3d") in known() and "/diagnostics" in topics(publishers), "waited for discovery", node)
    published = {n: k for n, k in topics(publishers).items() if n not in beside and "/_action/" not in n}
    assert published == expected(OUTPUTS)
    inputs = {n: k for n, k in topics(subscribers).items() if n not in beside and "/_action/" not in n}
    wanted = expected(INPUTS)
    assert set(inputs) <= set(wanted) and {"image", "camera_info", "depth", "mask"} <= set(inputs)
    offered = topics(services)
    for name, (kind, _) in SERVICES.items():
        full = name.replace("~", "align")
        action = "/action/" in kind
        assert offered[full + "/_action/send_goal" if action else full] == (kind + "_SendGoal" if action else kind)
    names = [item.name for item in fields(AlignParameters)]
    listed = listener.call(ListParameters, "align/list_parameters", ListParameters.Request(), node).result.names
    assert set(names) <= set(listed)
    others = {name for name in listed if not name.startswith("qos_overrides.")} - set(names)
    assert others <= {"use_sim_time", "start_type_description_service"}
    described = listener.call(DescribeParameters, "align/describe_parameters", DescribeParameters.Request(names=names), node).descriptors
    for name, one, code in zip(names, described, descriptors(AlignParameters).values(), strict=True):
        assert (one.description, one.read_only) == (code.description, code.read_only) and one.description, name
        assert (one.floating_point_range, one.integer_range) == (code.floating_point_range, code.integer_range), name
    values = listener.call(GetParameters, "align/get_parameters", GetParameters.Request(names=["patience", "slop"]), node).values
    assert [value.double_value for value in values] == [0.5, 0.02]
