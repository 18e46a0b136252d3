"""Shapes and models of a few images, recorded with all that is found; see ``recorded.py``."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from category_folder import build, write_data_set
from random_category import box_category, outline_category, random_category
from recorded import check

from semalign3d_core.category.annotations import correction
from semalign3d_core.category.annotations.checks import Problems, checked_keypoints, images_per_label, present_keypoints, trust_ratio
from semalign3d_core.category.config import BuildConfig, DataPolicy, DenseOptions, EmOptions, ReferenceOptions, ViewOptions
from semalign3d_core.category.published import shape as published
from semalign3d_core.category.published.sparse import Descent
from semalign3d_core.category.report import shape_warnings, surface_warnings
from semalign3d_core.category.shape import disparity_start, multiview, weak_perspective
from semalign3d_core.category.shape.em import continued, expectation, fit_factor_model, image_costs
from semalign3d_core.category.shape.factor_model import deformation_modes
from semalign3d_core.category.shape.find import find_shape, handedness_evidence
from semalign3d_core.category.shape.flat import fit_outline_model, reversed_poses, unexplained_depth
from semalign3d_core.category.shape.mirror import to_mirror_plane
from semalign3d_core.category.statistics import beta, beta_tables
from semalign3d_core.category.statistics import geometric_features as features
from semalign3d_core.category.statistics.fisher_modes import fisher_modes
from semalign3d_core.category.surface.dense_cloud import Samples, supported_clusters, within_hull
from semalign3d_core.category.surface.point_features import feature_statistics
from semalign3d_core.category.surface.surface_map import best_plane, is_flat, plane_of_some, surface_map
from semalign3d_core.datasets.records import ImageRecord
from semalign3d_core.geometry.rotations import shape_diameter
from semalign3d_core.runtime.config import load_preset
from semalign3d_core.runtime.errors import InputError

FEW = EmOptions(rounds=2, hidden_rounds=2)
TINY = Descent(starts=2, coarse_steps=8, steps=12, features=200)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Few rounds of what goes on until nothing changes."""
    for module in (disparity_start, published):
        monkeypatch.setattr(module, "DESCENT", TINY)
    monkeypatch.setattr(disparity_start, "STEPS", 10)
    monkeypatch.setattr(disparity_start, "FEATURES", 300)
    monkeypatch.setattr(multiview, "BANK_ROUNDS", 2)
    monkeypatch.setattr(multiview, "ROUNDS", 2)
    monkeypatch.setattr(weak_perspective, "BANK", 150)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("case", ["disparity", "scaled", "frontal", "one_sided"])
def test_shapes_of_every_start(case):
    data, _ = random_category(
        images=10, keypoints=8, seed=2, depth="scaled" if case == "scaled" else "disparity", frontal=case == "frontal"
    )
    data = replace(data, flip=None, outline=None) if case == "one_sided" else data
    config = BuildConfig(em=FEW, seed=3, start="disparity" if case in ("disparity", "scaled") else "auto")
    check(f"build_shape_{case}", found=find_shape(data, config))


def test_shape_of_many_views():
    data, _ = random_category(images=10, keypoints=8, seed=1)
    found = find_shape(data, BuildConfig(em=FEW))
    model = found.model
    reversal = {"costs": image_costs(model, data), "evidence": handedness_evidence(model, data)}
    modes = deformation_modes(model.covariance, 10, torch.arange(8) + 1, 5)
    few = shape_warnings(data, {"handedness_evidence": 2.4}), shape_warnings(data, {"handedness_evidence": 2.6})
    assert [len(each) for each in few] == [1, 0]
    check("build_shape_multiview", found=found, reversal=reversal, modes=modes)


def test_shapes_with_masks():
    """Keypoints that the object hides lie behind its mask."""
    data, _ = box_category(images=14)
    found = find_shape(data, BuildConfig(em=FEW, start="multiview"))
    model, posterior = expectation(found.model, data, 1)
    check("build_hidden", found=found.model, again=model, posterior=posterior, costs=image_costs(model, data))


def test_shapes_of_outlines():
    data, truth = outline_category(images=10, noise=0.02)
    plain = fit_factor_model(truth.shape / shape_diameter(truth.shape), data, FEW)
    assert is_flat(plain.shape, len(data.points))
    found = fit_outline_model(replace(plain, flat=True), data, 1)
    thick = replace(plain, flat=True, thickness=1.0)
    moved = continued(thick, data, 1)
    surface = surface_map(torch.rand(20, 3, generator=generator()).double() - 0.5, thick.shape, thick.plane)
    warnings = [surface_warnings(replace(surface, offsets=sign * surface.offsets.abs()), thick) for sign in (1, -1)]
    assert sorted(map(len, warnings)) == [0, 1] and surface_warnings(surface, replace(thick, thickness=0.0)) == []
    check(
        "build_outlines",
        found=found,
        moved=moved,
        reversed=reversed_poses(thick),
        unexplained=[unexplained_depth(replace(thick, thickness=t), data) for t in (0.0, 0.5, 2.0)],
        costs=image_costs(thick, data),
        warned=[bool(each) for each in warnings],
    )


def test_shapes_of_the_published_steps():
    data, _ = random_category(images=12, keypoints=7, seed=4)
    config = BuildConfig(method="reference", reference=ReferenceOptions(focal_steps=15))
    known = replace(data, focal_known=torch.arange(12) % 3 == 0)
    check("build_published", 1e-4, unknown=find_shape(data, config), known=find_shape(known, config))


@pytest.fixture(scope="module", params=["disparity", "metric"])
def folder(request, tmp_path_factory):
    return request.param, write_data_set(tmp_path_factory.mktemp(request.param), request.param, camera=request.param == "metric")


def written(built):
    """Model and report of a build, without times, names and versions."""
    model, report = built
    values = {name: value for name, value in vars(model).items() if name not in ("built_from", "category", "backbone")}
    return {"model": values, "report": {name: value for name, value in report.items() if name != "seconds"}}


def test_models_from_files(folder):
    kind, root = folder
    config = BuildConfig(calibrate=False, em=FEW, dense=DenseOptions(points=30), views=ViewOptions(pixels=120, margin=2))
    check(f"build_files_{kind}", 1e-4, **written(build(root, config)))


def test_published_models_from_files(folder):
    kind, root = folder
    options = ReferenceOptions(focal_steps=10, kept_points=100, clusters=40, neighbours=20, density=0.004)
    config = BuildConfig(method="reference", calibrate=False, reference=options, views=ViewOptions(pixels=150, margin=0))
    check(f"build_published_{kind}", 1e-4, **written(build(root, config)))


def test_the_default_settings():
    check("build_config", em=BuildConfig(), published=load_preset(BuildConfig, "build", "reference"))
    assert load_preset(BuildConfig, "build", "em") == BuildConfig()


def record(keypoints, width=40, height=30):
    return ImageRecord("thing", "one", Path("one.jpg"), height, width, np.asarray(keypoints, np.float32), None)


def test_keypoints_are_checked():
    """Outside the image by more than half a pixel, at one place with another, or too rare: dropped, with reasons."""
    nan = np.nan
    points = [[-0.4, 3], [-0.6, 3], [39.4, 29.4], [39.6, 3], [5, 29.6], [7, 7], [7, 7.0005], [nan, nan]]
    kept, reasons = checked_keypoints(record(points), [f"k{k}" for k in range(8)])
    assert (~torch.isnan(kept[:, 0])).tolist() == [True, False, True, False, False, False, False, False]
    assert len(reasons) == 4 and "'k5', 'k6'" in reasons[-1] and "k1" in reasons[0] and "40 x 30" in reasons[0]
    with pytest.raises(InputError, match="8 keypoints are annotated, the category has 7"):
        checked_keypoints(record(points), [f"k{k}" for k in range(7)])
    assert trust_ratio(30, 5, 8) == pytest.approx(60 / 42) and trust_ratio(30, 5, 0) == pytest.approx(60 / 31.5)


def test_rare_keypoints_are_absent():
    many = torch.rand(6, 5, 2, generator=generator())
    many[2:, 3] = torch.nan
    flip, problems, policy = torch.tensor([1, 0, 2, 3, 4]), Problems(), DataPolicy(images_per_keypoint=3)
    assert images_per_label(many, flip).tolist() == [6, 6, 6, 2, 6]
    names = [f"k{k}" for k in range(5)]
    assert present_keypoints(many, names, flip, policy, problems).tolist() == [True, True, True, False, True]
    assert len(problems.warnings) == 1 and "'k3' is annotated in 2 images, 3 are needed" in problems.warnings[0]
    problems.skipped = {f"im{n}": "it is broken" for n in range(6)}
    few = many.clone()
    few[2:, 1:] = torch.nan
    with pytest.raises(InputError, match=r"4 usable images.*6 images were left out, im0 because: it is broken"):
        present_keypoints(many[:4], names, None, policy, problems)
    problems.skipped.popitem()
    with pytest.raises(InputError, match=r"6 usable images.*1 keypoints with.*k0 6, k1 2, k2 2, k3 2, k4 2\. 5|Annotate more images"):
        present_keypoints(few, names, None, policy, Problems())


def test_places_in_masks():
    mask = torch.zeros(24, 30, dtype=torch.bool)
    mask[3:18, 4:20] = mask[10, 20:28] = mask[20:22, 2:6] = True
    points = torch.rand(40, 2, generator=generator()) * torch.tensor([29.0, 23.0])
    places = {margin: correction.depth_pixels(mask, points, margin) for margin in (0, 1, 3)}
    thin = torch.zeros_like(mask)
    thin[5, 3:9] = True
    check(
        "build_places",
        **{f"margin{margin}": found for margin, found in places.items()},
        whole=correction.nearest_mask_pixels(mask, points.round()),
        thin=[correction.depth_pixels(thin, points, margin) for margin in (0, 2)],
        eroded=correction.erode(mask).float(),
        outline=correction.outline_distance(mask),
        steps=correction.steps_inside(mask),
    )


def test_statistics_of_shapes():
    points = torch.randn(9, 6, 3, generator=generator(), dtype=torch.float64)
    visible = torch.rand(9, 6, generator=generator(1)) > 0.2
    table = beta_tables.noisy_beta_table(points[:1].expand(9, -1, -1) + 0.1 * points, visible, 6, generator(), 200)
    alpha, beta_ = torch.tensor([2.0, 0.5, 7.0, 1.0, 3.0, 0.5]).double(), torch.tensor([3.0, 4.0, 7.0, 1.0, 0.5, 0.5]).double()
    samples = torch.rand(50, 6, generator=generator()).double() ** 2
    samples[:, 3], samples[0, 4] = 0.3, 0.0
    fitted = beta.fit_from_logs(samples.log().mean(0), (1 - samples).log().mean(0))
    unseen = torch.zeros_like(visible)
    unseen[:, :1] = True
    check(
        "build_statistics",
        1e-4,
        table=table,
        few=beta_tables.beta_table(points.float(), visible, 5),
        noisy=beta_tables.noise_augmentation(points, visible, 2, generator()),
        unseen=beta_tables.noise_augmentation(points, unseen, 2, generator())[0],
        loss=features.geometric_loss(points.float(), table),
        fisher=fisher_modes(points[0], table, 9, rows=40),
        mode=beta.mode(alpha, beta_),
        variance=beta.variance(alpha, beta_),
        fitted=fitted,
        pairs=features.edge_pairs(4),
        triangles=features.triangles_with_vertex(5),
        triples=features.triple_features(points),
        moments=features.masked_mean_variance(points, visible[..., None].expand_as(points)),
    )
    fits = beta_tables.valid_edge_pairs(
        torch.tensor([[2.0, 3, 2, 2], [0.9, 3, 2, 2], [2, 3, 2, 0.9], [1.001, 3, 2, 2]]), torch.full((4,), 40)
    )
    assert fits.tolist() == [True, False, False, False]
    assert not beta_tables.valid_edge_pairs(torch.full((1, 4), 2.0), torch.tensor([39])).any()
    assert beta_tables.valid_tets(torch.tensor([[2.0] * 6, [2.0] * 5 + [0.9]]), torch.full((2,), 40)).tolist() == [True, False]
    assert features.geometric_loss(points[0], features.BetaTable.empty()) == 0


def test_surfaces_and_clusters():
    shape = torch.randn(7, 3, generator=generator(), dtype=torch.float64)
    flat = shape * torch.tensor([1, 1, 0.01])
    points = 1.5 * torch.randn(300, 3, generator=generator(1), dtype=torch.float64)
    image, some = torch.arange(300) % 6, torch.tensor([True, True, False, True, True, False, True])
    samples = Samples(points, image, torch.arange(300) // 6, torch.zeros(300, dtype=torch.bool))
    mirrored = torch.arange(7).flip(0)
    unit = torch.nn.functional.normalize(torch.randn(4, 5, 6, generator=generator(2), dtype=torch.float64), dim=-1)
    limits = {images: is_flat(shape * torch.tensor([1, 1, 0.03]) / 3, images) for images in (8, 10, 15, 20, 40)}
    check(
        "build_surfaces",
        round=surface_map(points[:40], shape, torch.zeros(2, 7).double()),
        flat=surface_map(points[:40], flat, best_plane(flat)),
        plane=plane_of_some(best_plane(flat), flat, some),
        limits={str(images): flat for images, flat in limits.items()},
        hull=within_hull(points, shape / 3, torch.zeros(2, 7).double(), 0.2).double(),
        flat_hull=within_hull(points, flat / 3, best_plane(flat), 0.2).double(),
        clusters=supported_clusters(samples, 20, 10, 0),
        statistics=feature_statistics(unit, torch.tensor([5, 3, 1, 0])),
        turned=to_mirror_plane(shape + 0.1 * shape[mirrored], mirrored),
    )
