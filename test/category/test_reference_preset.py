"""The preset ``reference``: every published step, on random categories with known truth and on a folder on disk."""

from dataclasses import replace

import pytest
import torch
from category_folder import IMAGES, NAMES, build, write_data_set
from random_category import outline_category, random_category

from semalign3d_core.category.annotations.constellations import constellations
from semalign3d_core.category.annotations.views import Providers, View, gather_view
from semalign3d_core.category.config import BuildConfig, ReferenceOptions
from semalign3d_core.category.published import focal
from semalign3d_core.category.published import shape as published
from semalign3d_core.category.published.dense_cloud import _canonical_pixels, reference_cloud
from semalign3d_core.category.published.focal import focal_loss, optimise_focal
from semalign3d_core.category.published.shape import camera_points, reference_shape
from semalign3d_core.category.published.sparse import Descent
from semalign3d_core.category.shape.find import find_shape
from semalign3d_core.category.shape.mirror import MIRROR
from semalign3d_core.category.statistics import beta_tables
from semalign3d_core.category.statistics.geometric_features import edge_pair_features, geometric_loss
from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.geometry.camera import back_project
from semalign3d_core.geometry.image_grid import SquareGrid
from semalign3d_core.geometry.rotations import rotation_angle, similarity_alignment
from semalign3d_core.perception import depth, masks
from semalign3d_core.perception.backbones import FeatureBackbone
from semalign3d_core.perception.evidence import FeatureMap, read_image
from semalign3d_core.runtime.config import load_preset

QUICK = ReferenceOptions(focal_steps=60, clusters=60, neighbours=40)
CONFIG = BuildConfig(method="reference", calibrate=False, reference=QUICK)


def quiet(*_):
    pass


@pytest.fixture(scope="module", autouse=True)
def short_descent():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published, "DESCENT", Descent(starts=6, coarse_steps=120, steps=200, features=1024))
        yield


@pytest.fixture(scope="module")
def found(short_descent):
    data, truth = random_category(images=30, keypoints=8, seed=8)
    return data, truth, find_shape(data, replace(CONFIG, reference=replace(QUICK, focal_steps=400)))


def test_preset_has_the_published_numbers():
    config = load_preset(BuildConfig, "build", "reference")
    options = config.reference
    assert (options.focal_steps, focal.RATE, focal.DECAY, focal.START) == (1000, 1e-3, 0.01, 0.2)
    assert (published.COPIES, beta_tables.NOISE) == (10, 0.2)
    assert (options.kept_points, options.clusters, options.neighbours, options.density) == (1000, 1000, 1000, 0.0005)
    assert config.method == "reference" and config.views.margin == 0


@pytest.mark.slow
def test_shape_hand_and_poses(found):
    data, truth, result = found
    errors = []
    for shape in (result.model.shape, result.model.shape * MIRROR):
        scale, rotation, shift = similarity_alignment(shape, truth.shape)
        errors.append(float((scale * shape @ rotation.T + shift - truth.shape).square().sum(-1).mean().sqrt()))
    assert errors[0] < 0.06 and errors[0] < errors[1]
    turn = similarity_alignment(result.model.shape, truth.shape)[1]
    assert float(torch.rad2deg(rotation_angle(result.model.rotation, truth.rotation @ turn)).median()) < 15
    assert result.report["start"] == "reference" and result.placed.all()
    assert (result.model.displacement == 0).all()


def test_stored_betas_are_those_of_the_back_projected_keypoints(found):
    """Mode of every ratio near the median over images and mirror images; at least four instances each."""
    data, _, result = found
    table, points, visible = result.table, camera_points(result.data), data.visible & data.measured
    points = torch.cat([points, points[:, data.flip] * MIRROR])
    visible = torch.cat([visible, visible[:, data.flip]])
    ratio, _ = edge_pair_features(points, table.edge1, table.edge2)
    seen = visible[:, table.edge1].all(-1) & visible[:, table.edge2].all(-1)
    assert (seen.sum(0) >= 4).all() and (table.edge_beta > 1).all() and (table.tet_beta > 1).all()
    alpha, beta = table.edge_beta[:, 0], table.edge_beta[:, 1]
    middle = torch.where(seen, ratio, torch.nan).nanmedian(0).values
    assert float((alpha / (alpha + beta) - middle).abs().median()) < 0.02


@pytest.mark.slow
def test_shape_is_as_likely_as_a_long_descent_from_the_truth(found):
    _, truth, result = found
    points = truth.shape.float().clone().requires_grad_()
    optimiser = torch.optim.Adam([points], lr=3e-3)
    for _ in range(500):
        loss = geometric_loss(points, result.table)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(geometric_loss(result.model.shape.float(), result.table)) < float(loss.detach()) + 0.05


def test_focal_search_lowers_the_variance_and_shares_images_with_their_mirror_images(found):
    data, _, result = found
    assert result.data.focal.shape == data.focal.shape and (result.data.focal > 0).all()
    before = torch.full_like(data.focal, 0.2).float()
    arguments = (data.points.float(), data.depth.float(), data.visible & data.measured, torch.zeros(len(before), 2))
    assert focal_loss((1 / result.data.focal).float(), *arguments) < focal_loss(before, *arguments)


@pytest.mark.slow
def test_known_focal_lengths_stay_and_need_no_search(monkeypatch):
    data, _ = random_category(images=12, keypoints=8, seed=2)
    some = replace(data, focal_known=torch.arange(12) < 5)
    result = find_shape(some, CONFIG)
    torch.testing.assert_close(result.data.focal[:5], data.focal[:5])
    assert (result.data.focal[5:] != data.focal[5:]).any()

    def no_search(*_, **__):
        raise AssertionError("searched")

    monkeypatch.setattr(torch.optim, "AdamW", no_search)
    known = torch.tensor([0.5, 0.7])
    values = optimise_focal(torch.zeros(2, 4, 2), torch.ones(2, 4), torch.ones(2, 4).bool(), torch.zeros(2, 2), 10, known)
    assert torch.equal(values, known)


@pytest.mark.slow
def test_keypoint_that_nothing_places_is_absent():
    data, _ = random_category(images=30, keypoints=8, seed=8)
    rare = torch.tensor([1, int(data.flip[1])])
    visible = data.visible.clone()
    visible[3:, rare] = False  # three images are one too few for the statistics
    visible[:3, rare[0]] = True
    visible[:3, rare[1]] = False
    result = find_shape(replace(data, visible=visible, measured=data.measured & visible), CONFIG)
    assert result.placed.sum() == 6 and not result.placed[rare].any()
    assert result.model.shape.shape == (6, 3) and torch.isfinite(result.model.shape).all()
    assert int(result.table.edge1.max()) < 6 and result.data.count == 6 and torch.equal(result.data.flip[result.data.flip], torch.arange(6))


@pytest.mark.slow
def test_result_does_not_depend_on_the_global_generator(found):
    data, _, result = found
    torch.manual_seed(99)
    again = reference_shape(data, replace(CONFIG, reference=replace(QUICK, focal_steps=400)), quiet)[0]
    assert torch.equal(again.shape, result.model.shape)


def view_of(points, depth, pixels, pixel_depth):
    """A view 200 x 200 with f = 1.5 of keypoints (K, 2) and pixels (S, 2), both in units of L from the middle."""
    nothing = torch.zeros(0, 4, dtype=torch.float16)
    centre = torch.tensor([0.5, 0.5])
    return View(
        name="one", height=200, width=200, kind="depth", focal=torch.tensor([1.5, 1.5]), principal=centre, focal_known=torch.tensor(True),
        keypoints=200 * (points + centre), corrected=200 * (points + centre),
        keypoint_inverse=1 / depth, keypoint_inset=torch.zeros(len(points)),
        middle_inverse=torch.full((len(points),), torch.nan), inverse_range=torch.tensor([0.1, 1.0]), largest_inverse=torch.tensor(1.0),
        box=torch.tensor([0.0, 0, 200, 200]), mask_offset=torch.zeros(4, 4, 2).half(), mask_origin=torch.tensor([-0.25, -0.25]),
        pixels=200 * (pixels + centre), pixel_inverse=1 / pixel_depth,
        keypoint_features=torch.zeros(len(points), 4, dtype=torch.float16), pixel_features=torch.zeros(len(pixels), 4, dtype=torch.float16),
        mirrored_keypoint_features=nothing, mirrored_pixel_features=nothing,
    )  # fmt: skip


@pytest.mark.parametrize("flat", [False, True])
def test_pixels_are_carried_into_the_object_frame_and_those_outside_dropped(flat):
    """Points inside the image's hull come back where they are on the object, also with a keypoint hidden; others are not kept."""
    if flat:
        data, truth = outline_category(images=1, seed=3)
    else:
        data, truth = random_category(images=1, keypoints=10, seed=3)
    shape, rotation = truth.shapes[0], truth.rotation[0]
    generator = torch.Generator().manual_seed(0)
    inside = torch.softmax(torch.randn(40, len(shape), generator=generator).double(), 1) @ shape
    if flat:
        inside = inside + 0.05 * torch.rand(40, 1, generator=generator) * torch.linalg.cross(shape[1] - shape[0], shape[2] - shape[0])
    outside = shape.mean(0) + 3 * (shape[:5] - shape.mean(0))
    camera = torch.cat([shape, inside, outside]) @ rotation.T + torch.tensor([0.05, -0.1, 2.5]).double()
    flat_image, depth = 1.5 * camera[:, :2] / camera[:, 2:], camera[:, 2]
    count = len(shape)
    view = view_of(flat_image[:count].float(), depth[:count].float(), flat_image[count:].float(), depth[count:].float())
    seen = torch.ones(1, count, dtype=torch.bool)
    places = {"points": flat_image[None, :count], "corrected": flat_image[None, :count], "depth": depth[None, :count]}
    data = replace(data, **places, visible=seen, measured=seen, focal=torch.tensor([1.5]).double())
    model = replace(find_model(shape, data), flat=flat)
    known = seen[0].clone()
    known[4] = False
    for visible in (seen[0], known):
        moved = _canonical_pixels(view, model, data, 0, visible)
        kept = moved.kept[:40]
        assert int(kept.sum()) > 12 and not moved.kept[40:].any()
        torch.testing.assert_close(moved.points[:40][kept], inside[kept], atol=2e-4, rtol=0)


def find_model(shape, data):
    from semalign3d_core.category.published.shape import _posed

    return _posed(shape, torch.eye(shape.numel(), dtype=torch.float64), data)


@pytest.mark.slow
def test_build_from_a_folder(tmp_path):
    config = replace(CONFIG, views=replace(CONFIG.views, margin=0))
    model, report = build(write_data_set(tmp_path / "set"), config)
    assert report["method"] == report["start"] == "reference" and len(report["images"]) == IMAGES
    assert model.present.all() and len(model.betas.edge1) > 0 and len(model.weights) > 0
    torch.testing.assert_close(model.weights.sum(1), torch.ones(len(model.weights)), atol=1e-4, rtol=0)
    assert model.pose_rotations.shape == (2 * IMAGES, 3, 3)
    for value in (model.shape, model.weights, model.dense_features, model.dense_sd, model.keypoint_sd, model.modes, model.betas.tet_beta):
        assert torch.isfinite(value).all()
    assert all(name in NAMES for name in (image["worst_keypoint"] for image in report["images"]))


@pytest.mark.slow
def test_dense_points_keep_support_and_neighbour_statistics(tmp_path):
    """Clusters thinner than the density are dropped; features are unit means of near points."""
    folder = write_data_set(tmp_path / "set")
    everything, _ = build(folder, CONFIG)
    thick, _ = build(folder, replace(CONFIG, reference=replace(QUICK, density=0.02)))
    assert 0 < len(thick.weights) < len(everything.weights) <= QUICK.clusters
    torch.testing.assert_close(everything.dense_features.norm(dim=1), torch.ones(len(everything.weights)), atol=1e-4, rtol=0)
    assert (everything.dense_mu <= 1).all() and (everything.dense_sd > 0).all()


@pytest.mark.slow
def test_flat_category_has_a_cloud_with_depth():
    data, truth = outline_category(images=20, seed=4)
    data = replace(data, depth=_published(data), focal_known=torch.ones(20, dtype=torch.bool))
    model, data, _, _ = reference_shape(data, CONFIG, quiet)
    model = replace(model, flat=True)
    views = [_surface_view(data, truth, n) for n in range(20)]
    surface, (features, mu, sd) = reference_cloud(views, model, data, replace(CONFIG, reference=replace(QUICK, density=0.0)), 25)
    height = (surface @ model.shape - model.shape.mean(0)) @ _axis(model)
    assert len(surface) > 10 and float(height.abs().max()) > 0.05
    assert torch.isfinite(features).all() and torch.isfinite(mu).all() and torch.isfinite(sd).all()


def _axis(model):
    return torch.linalg.svd(model.shape - model.shape.mean(0))[2][2]


def _published(data):
    """z of the keypoints as true depth, from the exact constellations: distance of the plane, by the images' own scale."""
    return torch.full_like(data.inverse, 2.0) - 0.3 * data.inverse


def _surface_view(data, truth, n):
    """A view whose pixels lie between the two sides, nearer than both."""
    generator = torch.Generator().manual_seed(n)
    share = torch.rand(200, 1, generator=generator).double()
    pair = torch.randint(5, (200,), generator=generator)
    points = share * data.points[n, 2 * pair] + (1 - share) * data.points[n, 2 * pair + 1]
    depth = data.depth[n, 2 * pair] - 0.2 * (share * (1 - share))[:, 0].sqrt()
    return view_of(data.points[n].float(), data.depth[n].float(), points.float(), depth.float())


def test_back_projection_uses_the_found_focal_length(found):
    data, _, result = found
    expected = back_project(data.points, data.depth, result.data.focal[:, None, None], torch.zeros(2).double())
    torch.testing.assert_close(camera_points(result.data), expected)


def test_keypoints_are_corrected_into_the_mask_as_published(tmp_path):
    """Pixel and depth of a keypoint beside the mask are those of the nearest pixel of the eroded mask."""
    folder = write_data_set(tmp_path / "set")
    dataset = FolderDataset(folder)
    record = dataset.images("thing")[0]
    providers = Providers(Constant(), depth.create("precomputed", folder), masks.create("precomputed", folder))
    mask = providers.segmenter.segment(read_image(record.path, record))
    rows, columns = mask.nonzero().unbind(1)
    keypoints = torch.from_numpy(record.keypoints).clone()
    k = int(torch.isfinite(keypoints[:, 0]).nonzero()[0, 0])
    keypoints[k] = torch.stack([columns.min() - 5, (rows.min() + rows.max()) // 2]).float()  # left of the object
    view = gather_view(record, keypoints, providers, load_preset(BuildConfig, "build", "reference").views)
    data = constellations([view], torch.arange(len(keypoints)), None)
    points = camera_points(data)[0, k]
    pixel = (points[:2] / points[2] * data.focal[0] + 0.5) * max(record.height, record.width)
    assert pixel.tolist() == pytest.approx([float(columns.min()) + 2, float(keypoints[k, 1])], abs=1e-3)  # two erosions from the left
    assert bool(data.visible[0, k]) and float(points[2]) == pytest.approx(float(data.depth[0, k]))


class Constant(FeatureBackbone):
    """A backbone of constant features."""

    name, channels = "constant", 1

    def extract(self, image):
        return FeatureMap(torch.ones(1, 2, 2), SquareGrid(image.height, image.width, 2))
