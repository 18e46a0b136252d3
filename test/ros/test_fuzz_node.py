"""A live node goes on whatever it is sent; ``bench/fuzz_node.py`` sends ten thousand messages."""

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("semalign3d_ros.srv", reason="needs the built messages: make setup, . scripts/env.sh")

from fuzz_node import attack  # noqa: E402
from node_memory import resident_mebibytes  # noqa: E402
from standin import standin  # noqa: E402

from semalign3d_ros.srv import SetCategory, SetDemonstration  # noqa: E402

LONG = {SetCategory: ("set_category", "category"), SetDemonstration: ("set_demonstration", "file")}


@pytest.mark.slow
def test_no_message_and_no_call_ends_the_node(world, listener, start):
    node = start(standin("align_node"), world.parameters)
    listener.wait(lambda: listener.node.count_subscribers("image") > 0, "waited for the node", node)
    sent = attack(listener, node, 500, seed=1)
    assert sum(sent.values()) >= 500
    assert node.stop() == 0 and "Traceback" not in node.output(), node.output()[-3000:]


@pytest.mark.slow
def test_large_calls_leave_no_memory_behind(world, listener, start):
    node = start(standin("align_node"), world.parameters)
    clients = {kind: listener.node.create_client(kind, f"align/{name}") for kind, (name, _) in LONG.items()}
    for kind, client in clients.items():  # what the first call needs stays: threads, code
        listener.call(kind, client.srv_name, kind.Request(), node)
    before = resident_mebibytes(node.process.pid)
    for kind, client in clients.items():
        request = kind.Request(**{LONG[kind][1]: "y" * 10_000_000})
        answers = [client.call_async(request) for _ in range(8)]  # they wait side by side in the history
        listener.wait(lambda answers=answers: all(one.done() for one in answers), "waited for answers", node)
        assert not any(one.result().success for one in answers)
    assert resident_mebibytes(node.process.pid) - before < 80
