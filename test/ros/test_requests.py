"""Requests over real DDS: one image on demand, demonstrations, pause, several objects, and the managed node."""

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("semalign3d_ros.action", reason="needs the built messages: make setup, . scripts/env.sh")

import numpy as np  # noqa: E402
from action_msgs.msg import GoalStatus  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402
from rcl_interfaces.srv import GetParameters  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from standin import standin  # noqa: E402
from std_msgs.msg import Header  # noqa: E402
from std_srvs.srv import SetBool  # noqa: E402
from test_align_node import Camera, header, library  # noqa: E402

from semalign3d_core.perception.evidence import ImageInput  # noqa: E402
from semalign3d_ros.action import AlignNow  # noqa: E402
from semalign3d_ros.conversions import array_to_image  # noqa: E402
from semalign3d_ros.msg import Correspondences, Point2D, SemanticObjects  # noqa: E402
from semalign3d_ros.srv import SetCategory, SetDemonstration  # noqa: E402


class Client:
    """Sends goals of AlignNow and waits for what comes of them."""

    def __init__(self, listener, node):
        self.listener, self.node, self.stages = listener, node, []
        self.client = ActionClient(listener.node, AlignNow, "align/align_now")
        listener.wait(self.client.server_is_ready, "waited for the action server", node)

    def future(self, future, what):
        self.listener.wait(future.done, f"waited for {what}", self.node)
        return future.result()

    def accept(self, goal):
        handle = self.future(self.client.send_goal_async(goal, lambda message: self.stages.append(message.feedback.stage)), "the goal")
        assert handle.accepted
        return handle

    def result(self, handle):
        return self.future(handle.get_result_async(), "the result")

    def close(self):
        self.client.destroy()


def test_images_on_demand_with_a_demonstration_in_the_request(world, listener, start):
    node = start(standin("align_node"), world.parameters)
    client = Client(listener, node)
    picture = array_to_image(world.pictures[2], "rgb8", header())
    visible = np.flatnonzero(world.truth[0].visible.numpy())[:2]
    points = [Point2D(**dict(zip("xy", map(float, world.truth[0].keypoints[k]), strict=True))) for k in visible]
    shown = array_to_image(world.pictures[0], "rgb8", Header())
    goal = AlignNow.Goal(image=picture, demonstration=shown, labels=["a", "b"], points=points)
    answer = client.result(client.accept(goal))
    assert answer.status == GoalStatus.STATUS_SUCCEEDED and answer.result.success, answer.result.message
    alignment = library(world).process(ImageInput(world.pictures[2])).alignment
    (found,) = answer.result.found.objects
    expected = alignment.keypoints_2d.numpy()
    np.testing.assert_allclose([[k.pixel.x, k.pixel.y] for k in found.keypoints], expected, atol=0.1)
    assert found.header == picture.header and np.isfinite(found.pose_covariance).all() and found.keypoints[0].pixel_covariance[0] > 0
    assert [c.label for c in answer.result.correspondences.correspondences] == ["a", "b"]
    # wrong requests say what is wrong, and the next one is answered
    for wrong, named in (
        (AlignNow.Goal(image=picture, category="unicorn"), "unicorn"),
        (AlignNow.Goal(image=picture, category=str(world.model_path)), "a category is named, not a file"),
        (AlignNow.Goal(image=Image(height=2, width=2, encoding="rgb8", step=6, data=[1] * 5)), "check the driver"),
        (AlignNow.Goal(image=picture, demonstration=shown, labels=["a"]), "1 labels and 0 points"),
        (AlignNow.Goal(image=picture, labels=["a"], points=points[:1]), "no image that they are in"),
        (AlignNow.Goal(timeout=-1.0), "0 to wait for ever"),
        (AlignNow.Goal(timeout=0.2), "no image came within 0.2 s"),
    ):
        answer = client.result(client.accept(wrong))
        assert answer.status == GoalStatus.STATUS_ABORTED and named in answer.result.message
    # a request for the next image: cancelled, then answered
    handle = client.accept(AlignNow.Goal())
    listener.wait(lambda: "waiting for the next image" in client.stages, "waited for feedback", node)
    client.future(handle.cancel_goal_async(), "the cancelling")
    assert client.result(handle).status == GoalStatus.STATUS_CANCELED
    client.stages.clear()
    camera = Camera(listener, node)
    handle = client.accept(AlignNow.Goal())
    listener.wait(lambda: "waiting for the next image" in client.stages, "waited for feedback", node)
    sent = camera.send(array_to_image(world.pictures[1], "rgb8", Header()))
    assert client.result(handle).result.found.header == sent
    # a request that waits for ever does not keep the node from ending
    client.stages.clear()
    client.accept(AlignNow.Goal())
    listener.wait(lambda: "waiting for the next image" in client.stages, "waited for feedback", node)
    client.close()
    assert node.stop() == 0 and "Traceback" not in node.output()


def test_a_demonstration_by_service_and_a_pause(world, listener, start):
    node = start(standin("align_node"), [*world.parameters, "catgory:=mug"])
    listener.wait(lambda: "did you mean category?" in node.output(), "waited for a warning of the misspelt parameter", node)
    twice = listener.call(SetCategory, "align/set_category", SetCategory.Request(category="chair,chair"), node)
    assert not twice.success and "twice" in twice.message
    camera, received = Camera(listener, node), listener.collect(Correspondences, "correspondences")
    request = SetDemonstration.Request(
        image=array_to_image(world.pictures[0], "rgb8", Header()), labels=["tip"], points=[Point2D(x=100.0, y=120.0)]
    )
    response = listener.call(SetDemonstration, "align/set_demonstration", request, node)
    assert response.success, response.message
    value = listener.call(GetParameters, "align/get_parameters", GetParameters.Request(names=["demonstration"]), node).values[0]
    assert value.string_value == "request 1" and value.string_value in response.message
    camera.ask(world.pictures[1])
    listener.wait(lambda: received, "waited for correspondences", node)
    assert [c.label for c in received[0].correspondences] == ["tip"]
    request.points[0].x = 1000.0
    refused = listener.call(SetDemonstration, "align/set_demonstration", request, node)
    assert not refused.success and "outside" in refused.message
    for hostile in ("/etc/passwd", "../x.yaml", "/dev/zero", "y" * 300, "a\nb", str(world.folder / "nowhere.yaml")):
        refused = listener.call(SetDemonstration, "align/set_demonstration", SetDemonstration.Request(file=hostile), node)
        assert not refused.success and "is no file in" in refused.message and len(refused.message) < 1500
    assert listener.call(SetBool, "align/enable", SetBool.Request(data=False), node).success
    ignored = camera.send(array_to_image(world.pictures[1], "rgb8", Header()))
    assert listener.call(SetDemonstration, "align/set_demonstration", SetDemonstration.Request(), node).success  # none any more
    assert listener.call(SetBool, "align/enable", SetBool.Request(data=True), node).success
    camera.ask(world.pictures[2])
    assert not any(message.header == ignored for message in camera.keypoints)


def test_labels_of_a_mask_are_objects_with_lasting_numbers(world, listener, start):
    node = start(standin("align_node"), [*world.parameters, "patience:=30.0"])
    camera, received = Camera(listener, node), listener.collect(SemanticObjects, "objects")
    masks = listener.publisher(Image, "mask")
    listener.wait(masks.get_subscription_count, "waited for the subscription", node)
    truth = world.truth[2].evidence.mask.numpy()
    labels = np.where(truth, 1, 0).astype(np.uint16)
    for _ in range(20):  # the node's own discovery of the topic mask
        listener.executor.spin_once(timeout_sec=0.02)
    numbers = []
    for label in (1, 7, 3):
        sent = camera.send(array_to_image(world.pictures[2], "rgb8", Header()))
        masks.publish(array_to_image(labels * label, "mono16", sent))
        best = camera.answer(sent)
        listener.wait(lambda sent=sent: received and received[-1].header == sent, "waited for objects", node)
        assert best.found and best.object_id == received[-1].objects[0].object_id
        numbers.append([one.object_id for one in received[-1].objects])
    assert numbers == [[1]] * 3
    sent = camera.send(array_to_image(world.pictures[2], "rgb8", Header()))
    masks.publish(array_to_image(labels * 0, "mono16", sent))
    assert not camera.answer(sent).found, "a mask that shows nothing"


def test_the_managed_node_works_while_it_is_active(world, listener, start):
    node = start([*standin("align_node"), "--lifecycle"], world.parameters)

    def go(transition):
        request = ChangeState.Request(transition=Transition(id=transition))
        return listener.call(ChangeState, "align/change_state", request, node).success

    for _ in range(2):
        assert go(Transition.TRANSITION_CONFIGURE)
        assert go(Transition.TRANSITION_ACTIVATE)
        camera = Camera(listener, node)
        camera.ask(world.pictures[1])
        assert go(Transition.TRANSITION_DEACTIVATE)
        assert go(Transition.TRANSITION_CLEANUP)
        listener.wait(lambda: not listener.node.count_publishers("keypoints"), "waited for the topics to go", node)
    assert node.stop() == 0 and "Traceback" not in node.output()
