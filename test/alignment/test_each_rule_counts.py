"""Rules that good images hardly need: each test fails when its rule is switched off."""

from dataclasses import replace

import torch

from semalign3d_core.alignment.gauss_newton.poses import Candidates, project_points
from semalign3d_core.alignment.gauss_newton.residuals import KEYPOINT_BACKGROUND, KEYPOINT_LIMIT, RobustResiduals
from semalign3d_core.alignment.result import inside_image, warm_start
from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.perception.evidence import FeatureMap


def observed(aligner, evidence):
    image = aligner.prepare(evidence)
    return image, aligner.observe(image)


def test_boxes_larger_than_the_mask_are_tried_on_every_side(chair):
    """The mask may lack a part of the object on any side."""
    category, aligner = chair
    _, observation = observed(aligner, category.image(60).evidence)
    mask_box, larger = observation.boxes[0], observation.boxes[1:]
    grown = torch.cat([mask_box[:2] - larger[:, :2], larger[:, 2:] - mask_box[2:]], 1)  # left, top, right, bottom
    assert (grown > -1e-6).all() and (grown.amax(0) > 0.2 * observation.size).all()


def test_a_warm_start_grows_with_the_box_of_the_mask(chair):
    """Before any step of the solver, the object is as much larger as the mask."""
    category, aligner = chair
    far, near = (category.image(61, view=(30.0, 15.0, 0.0), size=(size, size)).evidence for size in (0.5, 0.65))
    state, extents, boxes = aligner.align(far).tracking, [], []
    for evidence in (far, near):
        _, observation = observed(aligner, evidence)
        poses = warm_start(state, observation)
        focal = observation.focal[None] * poses.log_focal.exp()[:, None]
        projected = project_points(poses.keypoints(aligner.category), focal, observation.principal)[0]
        extents.append((projected.amax(0) - projected.amin(0)).sum())
        boxes.append((observation.boxes[0, 2:] - observation.boxes[0, :2]).sum())
    assert boxes[1] > 1.25 * boxes[0]
    torch.testing.assert_close(extents[1] / extents[0], boxes[1] / boxes[0], atol=0.05, rtol=0)


def test_a_keypoint_that_does_not_look_like_itself_is_believed_less(chair):
    category, aligner = chair
    image = category.image(60)
    grid, values = image.evidence.features.grid, image.evidence.features.values.clone()
    hidden = int(image.visible.nonzero()[0])
    near = (grid.cell_centres() - image.keypoints[hidden]).norm(dim=-1).view(grid.cells, grid.cells) < 25
    values[:, near] = torch.nn.functional.normalize(torch.randn(len(values), int(near.sum())), dim=0)
    spoiled = replace(image.evidence, features=FeatureMap(values, grid))
    whole, part = aligner.align(image.evidence), aligner.align(spoiled)
    ratio = part.keypoint_confidence / whole.keypoint_confidence
    assert (part.keypoints_2d - image.keypoints)[hidden].norm() < 25  # the other keypoints place it
    assert ratio[hidden] == ratio.min() and ratio[hidden] < 0.9 * ratio.median()


def test_of_two_solutions_the_one_in_the_order_of_the_depth_map_is_preferred(chair):
    """A shape that is turned inside out along the rays looks the same but for depth."""
    category, aligner = chair
    simulated = category.image(60)
    image, observation = observed(aligner, simulated.evidence)
    focal = simulated.evidence.camera.focal.expand(2, 2)
    depth = simulated.keypoints_3d[:, 2:]
    right = simulated.keypoints_3d / depth.mean()
    inside_out = right * (2 * depth.mean() - depth) / depth
    candidates = Candidates(torch.stack([right, inside_out]), focal, simulated.rotation.expand(2, 3, 3), torch.zeros(1))

    def preference(image):
        solution = aligner.judge(replace(observation, image=image), candidates)
        charged = solution.choice.score - solution.energies
        return float(charged[1] - charged[0])

    assert preference(image) > 0.1
    without, _ = observed(aligner, replace(simulated.evidence, depth=None))
    assert preference(without) == 0


def test_a_keypoint_beside_the_mask_is_pulled_back_more_than_a_point_of_the_cloud(chair):
    """Keypoints lie at the ends of thin parts, of which the cloud has few points."""
    category, aligner = chair
    _, observation = observed(aligner, category.image(60).evidence)
    field, cloud = observation.field, aligner.solver.fine
    around = observation.pixels[:, None] + 0.03 * torch.tensor([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    inside = observation.pixels[(field.sample(around) == 0).all(1)][0]
    places = inside.repeat(cloud.dense + len(aligner.category.keypoints), 1)
    outside = inside.clone()
    while field.sample(outside) < 0.03 * observation.object_scale:
        outside[0] += 0.1 * field.spacing
    places[0] = places[-1] = outside
    places = (places - observation.principal).T[None]
    sigma = torch.tensor([0.05])
    seen = (observation, replace(observation, image=replace(observation.image, field=None)))
    by_all, by_features = (RobustResiduals(each, cloud, aligner.config.energy, sigma)(places, 0)[0] for each in seen)
    point, keypoint = (by_all - by_features)[:, [0, -1]].T
    assert keypoint[0] < 5 * point[0] < 0 and keypoint[2] > 5 * point[2] > 0  # to the left, where the mask is; and the weights


def test_keypoints_far_beside_the_mask_cost_a_bounded_amount(chair):
    """A mask that lacks a part leaves many keypoints outside."""
    category, aligner = chair
    _, observation = observed(aligner, category.image(60).evidence)
    solver = aligner.solver
    residuals = RobustResiduals(observation, solver.fine, solver.weights, solver.sigmas[-1:])
    for beside in (0.5, 1.0):
        residuals(torch.full((1, 2, solver.fine.mean.shape[1]), beside), 0)
    largest = KEYPOINT_BACKGROUND * solver.weights.background * KEYPOINT_LIMIT
    near, far = (float(costs[2]) for costs in residuals.means)  # after the dense likelihoods and the cost of the cloud
    assert 0.9 * largest < near <= far <= 1.0001 * largest


def test_a_pixel_belongs_to_the_image_up_to_its_outer_edge():
    camera = PinholeCamera.centred(1.5, 4, 10)
    assert inside_image(torch.tensor([[-0.4, -0.4], [9.4, 3.4]]), camera).all()
    assert not inside_image(torch.tensor([[-0.6, 1.0], [1.0, 3.6], [torch.nan, 0.0]]), camera).any()
