"""Renderings: picture and truth agree with each other."""

from dataclasses import replace

import numpy as np
import pytest

from semalign3d_core.datasets.synthetic import CATEGORIES, KEYPOINTS, WORLDS, RenderConfig, make_instance, orbit, render, sample_rendering
from semalign3d_core.datasets.synthetic.disparity import DisparityConfig
from semalign3d_core.datasets.synthetic.instances import template
from semalign3d_core.datasets.synthetic.scene import SceneConfig
from semalign3d_core.datasets.synthetic.viewpoints import View, ViewConfig, place, rotation_matrix

SIZE = 128
PLAIN = RenderConfig(
    ViewConfig(small_rate=0.0, truncation_rate=0.0, upside_down_rate=0.0),
    SceneConfig(occluder_rate=0.0),
    DisparityConfig(noise=0.0, blur=0.0),
    samples=1,
)


@pytest.fixture(scope="module", params=sorted(WORLDS))
def renderings(request):
    config = replace(PLAIN, world=request.param)
    return {category: _large(category, config) for category in CATEGORIES}


def _large(category, config, count=6):
    """Renderings that show the object large enough for distances in pixels to mean something."""
    found = []
    for n in range(100):
        rendering = sample_rendering(category, 50 + n, n, SIZE, config)
        if (rendering.box[2:] - rendering.box[:2]).max() > 0.45 * SIZE:
            found.append(rendering)
        if len(found) == count:
            return found


def everything(renderings):
    return [rendering for group in renderings.values() for rendering in group]


def test_equal_seeds_give_equal_pixels():
    first, again = (sample_rendering("mug", 3, 4, 64) for _ in range(2))
    for name in ("image", "mask", "depth", "disparity", "canonical", "keypoints_2d"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert (sample_rendering("mug", 3, 5, 64).image != first.image).any()


@pytest.mark.slow
def test_keypoints_follow_from_pose_and_camera(renderings):
    for r in everything(renderings):
        camera = r.scale * r.shape @ r.rotation.T + r.translation
        np.testing.assert_allclose(camera, r.keypoints_3d, atol=1e-9)
        pixels = camera @ r.matrix.T
        np.testing.assert_allclose(pixels[:, :2] / pixels[:, 2:], r.keypoints_2d, atol=1e-6)
        np.testing.assert_allclose(r.rotation @ r.rotation.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(r.rotation) > 0
        assert not r.visible[np.isnan(r.shape).any(1)].any()


@pytest.mark.slow
def test_depth_at_visible_keypoints_is_their_z(renderings):
    for category, group in renderings.items():
        errors = []
        for r in group:
            for k in np.flatnonzero(r.visible):
                u, v = np.round(r.keypoints_2d[k]).astype(int)
                patch = r.depth[max(v - 2, 0) : v + 3, max(u - 2, 0) : u + 3]
                errors.append(np.nanmin(abs(patch - r.keypoints_3d[k, 2])) / r.scale)
        # Silhouette points of round bodies lie behind the rim that one sees.
        assert np.percentile(errors, 90) < (0.12 if category == "bottle" else 0.06), category


def test_metric_depth_back_projects_into_the_object(renderings):
    for r in everything(renderings):
        v, u = np.nonzero(r.mask)
        z = r.depth[v, u].astype(float)
        camera = np.stack([(u - r.matrix[0, 2]) / r.matrix[0, 0] * z, (v - r.matrix[1, 2]) / r.matrix[1, 1] * z, z], -1)
        points = (camera - r.translation) @ r.rotation / r.scale
        vertices = make_instance(r.category, r.instance_seed, r.world).vertices
        assert (points > vertices.min(0) - 1e-3).all() and (points < vertices.max(0) + 1e-3).all()


def test_canonical_map_finds_the_keypoints(renderings):
    for category, group in renderings.items():
        goal, errors = template(category).complete_keypoints, []
        for r in group:
            v, u = np.nonzero(r.mask)
            size = (r.box[2:] - r.box[:2]).max()
            for k in np.flatnonzero(r.visible):
                best = np.linalg.norm(r.canonical[v, u] - goal[k], axis=1).argmin()
                errors.append(np.hypot(u[best] - r.keypoints_2d[k, 0], v[best] - r.keypoints_2d[k, 1]) / size)
        assert np.median(errors) < 0.03 and np.percentile(errors, 90) < 0.08, category


def test_canonical_map_is_there_exactly_on_the_object(renderings):
    for r in everything(renderings):
        np.testing.assert_array_equal(np.isfinite(r.canonical).all(-1), r.mask)
        assert r.mask.sum() > 0 and not (r.mask & ~r.amodal_mask).any()


def test_canonical_maps_agree_between_instances(renderings):
    """Transferring visible keypoints by nearest canonical coordinate lands on the right keypoint of another instance."""
    for category, group in renderings.items():
        hits = []
        for source, target in zip(group, group[1:] + group[:1], strict=True):
            v, u = np.nonzero(target.mask)
            size = (target.box[2:] - target.box[:2]).max()
            for k in np.flatnonzero(source.visible & target.visible):
                x, y = np.round(source.keypoints_2d[k]).astype(int)
                window = source.canonical[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3].reshape(-1, 3)
                window = window[np.isfinite(window).all(1)]
                if len(window):
                    distance = np.linalg.norm(target.canonical[v, u][:, None] - window.mean(0), axis=-1)
                    best = distance.argmin()
                    hits.append(np.hypot(u[best] - target.keypoints_2d[k, 0], v[best] - target.keypoints_2d[k, 1]) < 0.1 * size)
        assert np.mean(hits) > 0.8, category


def test_left_and_right_stand_where_they_should(renderings):
    for r in renderings["bottle"]:
        names = KEYPOINTS["bottle"].names
        axis = r.keypoints_2d[names.index("base_left")] - r.keypoints_2d[names.index("shoulder_left")]
        across = r.keypoints_2d[names.index("shoulder_right")] - r.keypoints_2d[names.index("shoulder_left")]
        assert axis[0] * across[1] - axis[1] * across[0] < 0  # seen upright, right is on the right
    forward = rotation_matrix(0, 0, 0)
    np.testing.assert_allclose(forward @ (1, 0, 0), (1, 0, 0), atol=1e-12)  # +x on the right of a front view: own left
    np.testing.assert_allclose(forward @ (0, 1, 0), (0, -1, 0), atol=1e-12)
    np.testing.assert_allclose(rotation_matrix(90, 0, 0) @ (1, 0, 0), (0, 0, -1), atol=1e-12)  # seen from +x


def test_bottles_are_seen_from_azimuth_zero_and_show_their_outline(renderings):
    for r in renderings["bottle"]:
        camera = -r.rotation.T @ r.translation
        assert abs(camera[0]) < 1e-9 and camera[2] > 0 and r.azimuth == 0
        distance = _distance_to_outline(r)
        sides = [k for k, name in enumerate(KEYPOINTS["bottle"].names) if name.startswith(("shoulder", "waist", "base"))]
        size = (r.box[2:] - r.box[:2]).max()
        assert all(distance(r.keypoints_2d[k]) < 0.06 * size for k in sides if r.visible[k])


@pytest.mark.slow
def test_nothing_is_seen_through_the_wall_of_a_mug():
    """A camera that looks into it from the far side sees the inner wall, behind which its handle is attached."""
    attachments = [KEYPOINTS["mug"].names.index(name) for name in ("handle_top", "handle_bottom")]
    for azimuth, seen in ((60, True), (150, False), (180, False), (210, False)):
        for number in range(4):
            mug, turn = make_instance("mug", number), rotation_matrix(azimuth, 45, 0)
            view = place(mug, View(SIZE, SIZE, 1.5, azimuth, 45, 0, turn, np.zeros(3)), fill=0.7)
            assert (render(mug, view, number, PLAIN).visible[attachments] == seen).all(), (azimuth, number)


def _distance_to_outline(rendering):
    inner = rendering.mask.copy()
    inner[1:-1, 1:-1] &= rendering.mask[:-2, 1:-1] & rendering.mask[2:, 1:-1] & rendering.mask[1:-1, :-2] & rendering.mask[1:-1, 2:]
    v, u = np.nonzero(rendering.mask & ~inner)
    return lambda pixel: np.hypot(u - pixel[0], v - pixel[1]).min()


@pytest.mark.slow
def test_views_cover_all_azimuths_and_the_asked_elevations():
    views = [sample_rendering("car", n, n, 32, PLAIN) for n in range(80)]
    assert len({int(r.azimuth // 45) for r in views}) == 8
    focal = np.array([r.matrix[0, 0] / 32 for r in views])
    assert focal.min() >= 0.8 and focal.max() <= 2.5 and focal.max() / focal.min() > 2
    depth = np.array([r.translation[2] / r.scale for r in views])
    assert depth.max() / depth.min() > 2


def test_disparity_is_affine_in_inverse_depth_without_noise(renderings):
    for r in everything(renderings):
        rows = r.mask & (np.roll(r.mask, 3, 0) & np.roll(r.mask, -3, 0) & np.roll(r.mask, 3, 1) & np.roll(r.mask, -3, 1))
        if rows.sum() > 100:
            assert np.corrcoef(r.disparity[rows], 1 / r.depth[rows])[0, 1] > 0.93


@pytest.mark.slow
def test_harder_variants_do_what_they_say():
    clear = replace(PLAIN, view=replace(PLAIN.view, truncation_rate=1.0))
    assert all(sample_rendering("chair", n, n, 64, clear).truncated for n in range(6))
    covered = replace(PLAIN, scene=SceneConfig(occluder_rate=1.0))
    hidden = [sample_rendering("car", n, n, 64, covered) for n in range(8)]
    assert np.mean([r.occluded for r in hidden]) > 0.7
    small = replace(PLAIN, view=replace(PLAIN.view, small_rate=1.0))
    sizes = [(r.box[2:] - r.box[:2]).max() / 64 for r in (sample_rendering("mug", n, n, 64, small) for n in range(6))]
    assert max(sizes) < 0.36
    noisy = replace(PLAIN, disparity=DisparityConfig(noise=0.5))
    plain, rough = sample_rendering("tvmonitor", 1, 1, 64, PLAIN), sample_rendering("tvmonitor", 1, 1, 64, noisy)

    def straightness(r):
        return np.corrcoef(r.disparity[r.mask], 1 / r.depth[r.mask])[0, 1]

    assert straightness(rough) < straightness(plain) - 0.02


def test_oblong_pictures():
    r = sample_rendering("car", 1, 1, (64, 96), PLAIN)
    assert r.image.shape == (64, 96, 3) and r.mask.shape == (64, 96)
    np.testing.assert_allclose(r.matrix[:2, 2], (48, 32))


@pytest.mark.slow
def test_an_orbit_moves_smoothly_around_one_object():
    frames = list(orbit(make_instance("chair", 2_000_001), 36, 48, config=PLAIN))
    assert len(frames) == 36
    azimuths = np.unwrap(np.deg2rad([r.azimuth for r in frames]))
    assert np.all(np.diff(azimuths) > 0) and np.diff(azimuths).max() < np.deg2rad(25)
    jumps = [np.nanmax(np.linalg.norm(b.keypoints_2d - a.keypoints_2d, axis=1)) for a, b in zip(frames, frames[1:], strict=False)]
    assert max(jumps) < 0.2 * 48
    assert {r.instance_seed for r in frames} == {2_000_001}
