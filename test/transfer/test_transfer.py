"""Transfer of points between images whose alignment is known exactly, and known to be a little wrong."""

from dataclasses import replace

import pytest
import torch
from simulated_category import SHAPES, SIZE, SimulatedCategory

from semalign3d_core.alignment.result import Alignment, Alternatives
from semalign3d_core.category.storage import model_hash
from semalign3d_core.geometry.rotations import rotation_from_vector, similarity_alignment
from semalign3d_core.perception.evidence import DepthMap, FeatureMap
from semalign3d_core.runtime.config import load_preset
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.transfer.aligned_image import aligned_image, category_surface
from semalign3d_core.transfer.config import Transfer
from semalign3d_core.transfer.lift import Lifting, distinct_keypoints
from semalign3d_core.transfer.place import cycle_distance, likelihood_maps, place_points, transfer


def true_alignment(model, image, confidence=1.0, turned=(0.0, 0.0, 0.0)):
    """The alignment an image was made with, turned by a rotation vector about the object's centre."""
    points = image.keypoints_3d
    turn = rotation_from_vector(torch.tensor(turned))
    points = (points - points.mean(0)) @ turn.T + points.mean(0)
    scale, rotation, translation = similarity_alignment(model.shape, points)
    camera = image.evidence.camera
    return Alignment(
        model.category, model_hash(model), model.keypoint_names, points, camera.to_pixels(camera.project(points)), image.visible,
        torch.full((len(points),), confidence), model.weights @ points, rotation, translation, float(scale), camera,
        "relative", -1.0, {}, confidence, True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def world():
    """A chair category, six images of different chairs, and their true alignments."""
    category = SimulatedCategory("chair")
    model = category.model(betas=False)
    images = [category.image(seed) for seed in range(6)]
    surface = category_surface(model)
    aligned = [aligned_image(surface, image.evidence, true_alignment(model, image)) for image in images]
    return category, model, images, surface, aligned


def _object_size(image):
    rows, columns = image.evidence.mask.nonzero(as_tuple=True)
    return max(int(rows.max() - rows.min()), int(columns.max() - columns.min()))


def _errors(world, config, aligned=None):
    """Errors of all keypoints seen in both images of every pair, in object sizes."""
    _, _, images, surface, exact = world
    aligned, errors = aligned or exact, []
    for a, source in enumerate(images):
        for b, target in enumerate(images):
            both = source.visible & target.visible
            if a != b and both.any():
                found = transfer(surface, aligned[a], aligned[b], source.keypoints[both], config).points
                errors.append((found - target.keypoints[both]).norm(dim=1) / _object_size(target))
    return torch.cat(errors)


def test_keypoints_arrive_below_the_resolution_of_the_grid(world):
    """A cell is 1/60 of the image, about 1/40 of the object; the median error stays below it."""
    errors = _errors(world, load_preset(Transfer, "transfer", "keypoints"))
    assert (errors < 0.1).float().mean() > 0.93
    assert (errors < 0.05).float().mean() > 0.88
    assert errors.median() < 0.025


@pytest.mark.slow
def test_every_ingredient_earns_its_place(world):
    """Against a slightly wrong alignment: the residual, the soft second step and the preference for keypoints all help."""
    _, model, images, surface, _ = world
    turned = [aligned_image(surface, i.evidence, true_alignment(model, i, turned=(0.06, -0.08, 0.05))) for i in images]
    best = load_preset(Transfer, "transfer", "keypoints")

    def share(config):
        return (_errors(world, config, turned) < 0.05).float().mean()

    without = replace(best, projection=0.0)
    assert share(without) > share(replace(without, residual=0.0)) + 0.1
    assert share(best) > share(replace(best, residual=0.0)) + 0.05
    assert share(best) > share(replace(best, second_step="argmax")) + 0.02
    assert share(best) > share(replace(best, keypoint_preference=0.0))
    published = replace(load_preset(Transfer, "transfer", "reference"), category_sigmas={"chair": 0.03})
    assert share(best) > share(published) + 0.15


def test_an_image_to_itself_returns_every_point(world):
    """Image -> category -> image of arbitrary points on the object, own features left aside."""
    _, _, images, surface, aligned = world
    mask = images[0].evidence.mask.nonzero().flip(1).float()
    points = mask[:: len(mask) // 60] + 0.3
    found = transfer(surface, aligned[0], aligned[0], points, Transfer(own_feature=0.0, residual=1.0, projection_residual=1.0)).points
    distance = (found - points).norm(dim=1)
    assert distance.median() < 0.3
    assert (distance < SIZE / 60).float().mean() > 0.9


def _surface_samples(category, image, seed):
    """Pixels of the simulated object's surface samples and whether they are seen; the n-th is the same place of every chair."""
    import numpy as np

    boxes = SHAPES[category.name](np.random.default_rng(10_000 + seed))
    corners, samples = (torch.tensor(x, dtype=torch.float32) for x in (category.corners(boxes), category.place(boxes)))
    scale, rotation, translation = similarity_alignment(corners, image.keypoints_3d)
    samples = scale * samples @ rotation.T + translation
    pixels = image.evidence.camera.to_pixels(image.evidence.camera.project(samples))
    column, row = pixels.round().long().clamp(0, SIZE - 1).unbind(-1)
    seen = samples[:, 2] < 1.02 / image.evidence.depth.values[row, column]
    return pixels, seen & ((pixels >= 0) & (pixels < SIZE - 1)).all(1)


def test_arbitrary_surface_points_arrive(world):
    category, _, images, surface, aligned = world
    errors = []
    for a, b in ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0)):
        source, seen_here = _surface_samples(category, images[a], a)
        target, seen_there = _surface_samples(category, images[b], b)
        both = (seen_here & seen_there).nonzero()[:, 0]
        both = both[:: max(1, len(both) // 40)]
        found = transfer(surface, aligned[a], aligned[b], source[both], Transfer()).points
        errors.append((found - target[both]).norm(dim=1) / _object_size(images[b]))
    errors = torch.cat(errors)
    assert (errors < 0.1).float().mean() > 0.9
    assert (errors < 0.05).float().mean() > 0.7


def test_all_points_at_once_equal_one_by_one(world):
    _, model, images, surface, aligned = world
    config = Transfer()
    points = images[0].keypoints
    together = transfer(surface, aligned[0], aligned[1], points, config)
    single = [transfer(surface, aligned[0], aligned[1], p, config) for p in points]
    source, target = (aligned_image(category_surface(model), images[n].evidence, aligned[n].alignment) for n in (0, 1))
    direct = transfer(category_surface(model), source, target, points.numpy(), config)
    assert torch.allclose(together.points, direct.points, atol=1e-3)
    assert torch.allclose(together.confidence, direct.confidence, atol=1e-4)
    assert torch.allclose(together.points, torch.cat([s.points for s in single]), atol=1e-3)
    assert torch.equal(together.visible, torch.cat([s.visible for s in single]))


def test_a_demonstration_is_lifted_once_for_many_frames(world):
    _, _, images, surface, aligned = world
    lifted = Lifting(surface, aligned[0], images[0].keypoints, Transfer()).together
    for frame in aligned[1:3]:
        placed = place_points(surface, lifted, frame, Transfer())
        assert torch.equal(placed.points, transfer(surface, aligned[0], frame, images[0].keypoints, Transfer()).points)


def test_a_group_of_points_is_lifted_as_if_it_were_alone(world):
    """Keypoints compete: without its rivals, a query on a wrongly aligned source gets a keypoint that one of them had."""
    _, model, images, surface, _ = world
    wrong = aligned_image(surface, images[0].evidence, true_alignment(model, images[0], turned=(0.1, 0.3, 0.1)))
    points, config = images[0].keypoints, load_preset(Transfer, "transfer", "keypoints")
    lifting, moved = Lifting(surface, wrong, points, config), 0
    for kept in torch.rand(20, len(points), generator=torch.Generator().manual_seed(0)) < 0.5:
        rows = kept.nonzero()[:, 0]
        group, alone = lifting.rows(rows), Lifting(surface, wrong, points[rows], config).together
        moved += int((group.index != lifting.together.index[rows]).sum())
        assert torch.equal(group.index, alone.index)
        for name in ("features", "confidence", "residual", "around"):
            assert torch.allclose(getattr(group, name), getattr(alone, name), atol=1e-5), name
    assert moved > 0
    assert torch.equal(lifting.rows(torch.arange(len(points))).index, lifting.together.index)
    assert len(lifting.rows(torch.arange(0)).index) == 0


def test_what_was_lifted_once_is_kept_for_other_pairs(world, monkeypatch):
    _, model, images, surface, _ = world
    wrong = aligned_image(surface, images[0].evidence, true_alignment(model, images[0], turned=(0.1, 0.3, 0.1)))
    lifting = Lifting(surface, wrong, images[0].keypoints, load_preset(Transfer, "transfer", "keypoints"))
    groups = [kept.nonzero()[:, 0] for kept in torch.rand(20, len(images[0].keypoints), generator=torch.Generator().manual_seed(0)) < 0.5]
    first = [lifting.rows(rows) for rows in groups]
    monkeypatch.setattr(lifting._solutions[0], "_lifted", None)  # nothing needs to be lifted any more
    for rows, known in zip(groups, first, strict=True):
        again = lifting.rows(rows)
        assert torch.equal(again.index, known.index) and torch.equal(again.residual, known.residual)


def with_candidates(alignment, solutions, penalties):
    """The alignment as an aligner reports it that kept further solutions; penalties: of each, in scores."""
    points = torch.stack([alignment.keypoints_3d, *(solution.keypoints_3d for solution in solutions)])
    pixels = torch.stack([alignment.keypoints_2d, *(solution.keypoints_2d for solution in solutions)])
    count = len(points)
    kept = Alternatives(
        points, pixels, torch.stack([alignment.camera.focal] * count), torch.eye(3).expand(count, 3, 3),
        torch.tensor([0.0, *penalties]) - 1.0, torch.zeros(count),
    )  # fmt: skip
    return replace(alignment, alternatives=kept)


@pytest.fixture(scope="module")
def doubtful(world):
    """Every image aligned the wrong way round, with the truth kept as a slightly worse solution."""
    _, model, images, surface, _ = world
    truths = [true_alignment(model, image) for image in images]
    wrong = [true_alignment(model, image, turned=(0.0, 3.1, 0.0)) for image in images]
    kept = [with_candidates(w, [truth], [0.02]) for w, truth in zip(wrong, truths, strict=True)]
    return [aligned_image(surface, image.evidence, alignment) for image, alignment in zip(images, kept, strict=True)]


def test_pairs_tell_which_solution_is_right(world, doubtful):
    """Wrong in the target, in the source, or in both: what the queries look like speaks for the truth that both images kept."""
    _, _, images, surface, exact = world
    best = load_preset(Transfer, "transfer", "keypoints")

    def errors(sources, targets, config):
        found = []
        for a, b in ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0)):
            both = images[a].visible & images[b].visible
            moved = transfer(surface, sources[a], targets[b], images[a].keypoints[both], config)
            found.append((moved.points - images[b].keypoints[both]).norm(dim=1) / _object_size(images[b]))
        return torch.cat(found)

    known = errors(exact, exact, best)
    for sources, targets in ((exact, doubtful), (doubtful, exact), (doubtful, doubtful)):
        chosen = errors(sources, targets, best)
        assert (chosen < 0.1).float().mean() > (known < 0.1).float().mean() - 0.08
        assert (errors(sources, targets, replace(best, solution_similarity=0.0)) < 0.1).float().mean() < 0.6


def test_the_maps_are_those_of_the_chosen_solution(world, doubtful):
    _, _, images, surface, exact = world
    config = load_preset(Transfer, "transfer", "keypoints")
    lifted = Lifting(surface, exact[0], images[0].keypoints, config).together
    found, expected = (likelihood_maps(surface, lifted, image, config) for image in (doubtful[1], exact[1]))
    assert torch.allclose(found, expected, atol=1e-4)


def test_further_solutions_are_those_that_differ_and_are_nearly_as_good(world):
    _, model, images, surface, _ = world
    truth, other, same, worse = (true_alignment(model, images[0], turned=(0.0, angle, 0.0)) for angle in (0.0, 1.0, 0.01, 2.0))
    image = aligned_image(surface, images[0].evidence, with_candidates(truth, [other, same, other, worse], [0.03, 0.01, 0.04, 1.5]))
    (kept,) = image.others
    assert kept.penalty == pytest.approx(0.03, abs=1e-5) and image.penalty == 0 and image.solutions == (image, kept)
    both = aligned_image(surface, images[0].evidence, with_candidates(truth, [worse, other], [0.04, 0.03]))
    assert [solution.penalty for solution in both.others] == pytest.approx([0.03, 0.04], abs=1e-5)  # the better one first
    alone = aligned_image(surface, images[0].evidence, other)
    assert torch.allclose(kept.places, alone.places, atol=1e-4)
    assert kept.size == pytest.approx(alone.size, rel=1e-3)


def test_further_solutions_are_in_the_unit_of_the_alignment(world):
    _, model, images, surface, _ = world
    truth, other = (true_alignment(model, images[0], turned=(0.0, angle, 0.0)) for angle in (0.0, 1.0))
    metric, further = (
        replace(one, keypoints_3d=one.keypoints_3d * 0.7, scale=one.scale * 0.7, scale_kind="metric") for one in (truth, other)
    )
    (solution,) = aligned_image(surface, images[0].evidence, with_candidates(metric, [further], [0.03])).others
    assert solution.alignment.scale == pytest.approx(further.scale, rel=1e-3)
    assert torch.allclose(solution.keypoints, other.keypoints_3d * 0.7, rtol=1e-3)


def test_an_undetermined_turn_hides_no_keypoints(world):
    _, _, images, surface, aligned = world
    free = replace(aligned[0].alignment, undetermined_axis=torch.tensor([0.0, 1.0, 0.0]))
    turned, dense = aligned_image(surface, images[0].evidence, free), ~surface.is_keypoint
    assert aligned[0].hidden[surface.is_keypoint].any() and not turned.hidden[surface.is_keypoint].any()
    assert torch.equal(turned.hidden[dense], aligned[0].hidden[dense])


def test_named_keypoints_are_found_even_if_the_source_was_aligned_wrongly(world):
    _, model, images, surface, aligned = world
    source, target = images[0], images[1]
    both = source.visible & target.visible
    wrong = aligned_image(surface, source.evidence, true_alignment(model, source, turned=(0.0, 2.5, 0.0)))
    names = both.nonzero()[:, 0]

    def error(known):
        lifted = Lifting(surface, wrong, source.keypoints[both], Transfer(), known).together
        found = place_points(surface, lifted, aligned[1], Transfer())
        return (found.points - target.keypoints[both]).norm(dim=1) / _object_size(target), found.confidence

    searched, named = error(None), error(names)
    assert named[0].max() < 0.1 < searched[0].median()
    assert torch.equal(error(torch.full_like(names, -1))[0], searched[0])
    assert (named[1] >= searched[1]).all()


def test_three_dimensional_position_projects_onto_the_point(world):
    _, _, images, surface, aligned = world
    found = transfer(surface, aligned[0], aligned[1], images[0].keypoints, Transfer())
    camera = aligned[1].alignment.camera
    assert torch.allclose(camera.to_pixels(camera.project(found.points_3d)), found.points, atol=1e-2)
    both = images[0].visible & images[1].visible
    truth = images[1].keypoints_3d
    assert ((found.points_3d - truth).norm(dim=1)[both] / aligned[1].alignment.scale).median() < 0.08


def test_visibility_follows_the_object_and_what_stands_in_front(world):
    _, model, images, surface, aligned = world
    config = load_preset(Transfer, "transfer", "keypoints")
    agree = []
    for a in range(6):
        for b in range(6):
            if a != b:
                seen = images[a].visible
                found = transfer(surface, aligned[a], aligned[b], images[a].keypoints[seen], config)
                agree.append(found.visible == images[b].visible[seen])
    assert torch.cat(agree).float().mean() > 0.8
    evidence = images[1].evidence
    before = transfer(surface, aligned[0], aligned[1], images[0].keypoints, config)
    chosen = int(before.visible.nonzero()[0])
    near = (before.points - before.points[chosen]).abs().amax(1)
    column, row = before.points[chosen].round().int().tolist()
    values = evidence.depth.values.clone()
    values[max(row - 14, 0) : row + 15, max(column - 14, 0) : column + 15] = values.max() * 3  # something small in front
    covered = aligned_image(surface, replace(evidence, depth=DepthMap(values, "disparity")), aligned[1].alignment)
    after = transfer(surface, aligned[0], covered, images[0].keypoints, config)
    assert not after.visible[chosen]
    assert torch.equal(after.visible[near > 25], before.visible[near > 25])
    assert before.visible[near > 25].any()


def test_point_outside_the_picture_is_not_visible():
    category = SimulatedCategory("chair")
    model = category.model(images=10, betas=False)
    whole, cut = category.image(0), category.image(1, truncated=0.45)
    surface = category_surface(model)
    aligned = [aligned_image(surface, i.evidence, true_alignment(model, i)) for i in (whole, cut)]
    outside = ((cut.keypoints < -10) | (cut.keypoints > SIZE + 10)).any(1)
    assert outside.any()
    found = transfer(surface, *aligned, whole.keypoints, load_preset(Transfer, "transfer", "keypoints"))
    beyond = ((found.points < -0.5) | (found.points > SIZE - 0.5)).any(1)
    assert not found.visible[beyond].any()
    assert (beyond & outside).any()


def test_confidence_falls_with_the_alignment_and_off_the_object(world):
    _, model, images, surface, aligned = world
    seen = images[0].visible & images[1].visible
    points = images[0].keypoints[seen]
    sure = transfer(surface, aligned[0], aligned[1], points, Transfer()).confidence
    doubtful = aligned_image(surface, images[1].evidence, replace(aligned[1].alignment, confidence=0.3))
    assert ((sure >= 0) & (sure <= 1)).all()
    assert (transfer(surface, aligned[0], doubtful, points, Transfer()).confidence < 0.5 * sure).all()
    corner = transfer(surface, aligned[0], aligned[1], torch.tensor([[2.0, 2.0]]), Transfer())
    assert corner.confidence < 0.01 * sure.median()


def test_spread_grows_with_doubt_and_with_the_object(world):
    aligned = world[4][0]
    config = Transfer(sigma=0.02, target_sigma=0.03, size_unit=0.6, uncertain_widening=2.0)
    assert config.spreads(replace(aligned, size=0.6)) == pytest.approx((0.02, 0.03))
    assert config.spreads(replace(aligned, size=0.3)) == pytest.approx((0.01, 0.015))
    unsure = replace(aligned, size=0.6, alignment=replace(aligned.alignment, confidence=0.0))
    assert config.spreads(unsure) == pytest.approx((0.04, 0.06))


def test_published_spreads_of_the_reference_preset(world):
    """Paper, Table 5: chair and tv 0.01, aeroplane, bicycle and bottle 0.03, all others 1.0."""
    config = load_preset(Transfer, "transfer", "reference")
    aligned = world[4][0]
    expected = {"chair": 0.01, "tvmonitor": 0.01, "aeroplane": 0.03, "bicycle": 0.03, "bottle": 0.03, "car": 1.0, "dog": 1.0}
    for category, sigma in expected.items():
        image = replace(aligned, alignment=replace(aligned.alignment, category=category, confidence=0.1))
        assert config.spreads(image) == (sigma, sigma)


def test_published_argmax_is_the_best_cell_refined(world):
    """With an even field and no own feature the best place is the projected point itself."""
    _, _, _, surface, aligned = world
    one_feature = aligned[1].features.values[:, :1, :1].expand(-1, 60, 60)
    flat = replace(aligned[1], features=FeatureMap(one_feature, aligned[1].features.grid))
    config = replace(load_preset(Transfer, "transfer", "reference"), category_sigmas={"chair": 0.03})
    lifted = Lifting(surface, aligned[0], world[2][0].keypoints, config).together
    found = place_points(surface, lifted, flat, config)
    expected = flat.alignment.camera.to_pixels(flat.places[lifted.index])
    inside = ((expected > 0) & (expected < SIZE - 1)).all(1)
    assert inside.sum() >= 7
    assert (found.points - expected)[inside].abs().max() <= 0.5 * SIZE / 60 * 0.1 + 1e-3  # half a step of the refinement


def test_cycle_distance_tells_good_from_bad(world):
    _, model, images, surface, aligned = world
    seen = images[0].visible & images[2].visible
    points = images[0].keypoints[seen]
    good = cycle_distance(surface, aligned[0], aligned[2], points, Transfer())
    wrong = aligned_image(surface, images[2].evidence, true_alignment(model, images[2], turned=(0.0, 2.0, 0.0)))
    bad = cycle_distance(surface, aligned[0], wrong, points, Transfer())
    assert good.shape == (len(points),)
    assert good.median() < 6
    assert bad.median() > 1.5 * good.median()


def test_absent_keypoint_changes_nothing_and_is_never_found(world):
    _, model, images, _, aligned = world
    absent = replace(model, present=torch.tensor([True] * 9 + [False]), keypoint_features=model.keypoint_features.clone())
    absent.keypoint_features[9] = 0
    surface = category_surface(absent)
    alignment = aligned[0].alignment
    keypoints = alignment.keypoints_3d.clone()
    image = aligned_image(surface, images[0].evidence, replace(alignment, keypoints_3d=keypoints))
    lifted = Lifting(surface, image, images[0].keypoints, Transfer(keypoint_preference=50.0)).together
    assert not (lifted.index == len(surface.usable) - 1).any()
    assert torch.isfinite(lifted.residual).all()


def test_wrong_options_are_named(world):
    with pytest.raises(InputError, match="second_step is 'median', expected one of mean, argmax"):
        Transfer(second_step="median")
    with pytest.raises(InputError, match="must be positive"):
        Transfer(sigma=0.0)
    with pytest.raises(InputError, match="NaN"):
        transfer(world[3], world[4][0], world[4][1], torch.full((1, 2), torch.nan), Transfer())


def test_no_points_give_no_matches(world):
    found = transfer(world[3], world[4][0], world[4][1], torch.zeros(0, 2), Transfer())
    assert found.points.shape == (0, 2)
    assert found.points_3d.shape == (0, 3)


def test_distinct_queries_are_given_different_keypoints():
    """The likeliest assignment as a whole, not the likeliest keypoint of each; another point where no keypoint fits."""
    is_keypoint = torch.tensor([False, False, True, True])
    score = torch.tensor([[-30.0, -20.0, 5.0, 4.0], [-30.0, -20.0, 4.5, 1.0], [-3.0, -2.0, -40.0, -40.0]])
    assert distinct_keypoints(score, is_keypoint, 0.0).tolist() == [3, 2, 1]
    assert distinct_keypoints(score[:1], is_keypoint, 0.0).tolist() == [2]
    assert distinct_keypoints(score, is_keypoint, 60.0).tolist()[:2] == [3, 2]  # three queries, two keypoints
    assert distinct_keypoints(torch.zeros(0, 4), is_keypoint, 3.0).shape == (0,)


def test_points_not_seen_in_the_target_are_placed_by_the_alignment(world):
    """There is nothing of them to be found in the picture."""
    _, _, images, surface, aligned = world
    config = load_preset(Transfer, "transfer", "keypoints")
    lifted = Lifting(surface, aligned[0], images[0].keypoints, config).together
    placed = place_points(surface, lifted, aligned[1], config)
    unseen = (aligned[1].hidden | aligned[1].occluded)[lifted.index]
    projected = aligned[1].alignment.camera.to_pixels(aligned[1].places[lifted.index])
    assert unseen.any() and torch.allclose(placed.points[unseen], projected[unseen], atol=1e-3)
    assert not placed.visible[unseen].any()
    assert (placed.points - projected)[~unseen].norm(dim=1).min() > 0
