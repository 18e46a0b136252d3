"""A live node goes on whatever it is sent; ``bench/fuzz_node.py`` sends ten thousand messages."""

import pytest
from fuzz_node import attack
from standin import standin


@pytest.mark.slow
def test_no_message_and_no_call_ends_the_node(world, listener, start):
    node = start(standin("align_node"), world.parameters)
    listener.wait(lambda: listener.node.count_subscribers("image") > 0, "waited for the node", node)
    sent = attack(listener, node, 500, seed=1)
    assert sum(sent.values()) >= 500
    assert node.stop() == 0 and "Traceback" not in node.output(), node.output()[-3000:]
