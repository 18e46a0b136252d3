"""Ray casting (embree, no display): picture and full ground truth of an object in a scene."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from semalign3d_core.datasets.synthetic.appearance import CameraEffects, develop, dot, random_effects, shade
from semalign3d_core.datasets.synthetic.disparity import DisparityConfig, monocular_disparity
from semalign3d_core.datasets.synthetic.instances import CATEGORIES, Instance, generator, make_instance
from semalign3d_core.datasets.synthetic.looks import VariedMaterials
from semalign3d_core.datasets.synthetic.pictures import picture_bank
from semalign3d_core.datasets.synthetic.scene import OBJECT, OCCLUDER, SceneConfig, Surroundings, corner_normals, random_surroundings
from semalign3d_core.datasets.synthetic.varied_scene import varied_effects, varied_surroundings
from semalign3d_core.datasets.synthetic.viewpoints import View, ViewConfig, orbit_views, random_view, varied
from semalign3d_core.runtime.errors import MissingDependencyError

Hits = tuple[np.ndarray, np.ndarray, np.ndarray]  # triangle, depth and weights of the corners, of every ray


@dataclass(frozen=True)
class RenderConfig:
    """All that a rendering depends on besides its seeds.

    world: simple (the benchmarks' one: floating clutter, random textures) or varied (kinds of objects, views, materials and scenes
        as photographs show them, which training uses)
    pictures: folder of photographs for the varied world's backgrounds and surfaces; "" takes those of scikit-image, if installed
    empty: leave the object out, for pictures of nothing (mask and box are empty then, poses and keypoints are where it would be)
    """

    view: ViewConfig = field(default_factory=ViewConfig)
    scene: SceneConfig = field(default_factory=SceneConfig)
    disparity: DisparityConfig = field(default_factory=DisparityConfig)
    samples: int = 2  # colour samples per side of a pixel whose neighbours look different (anti-aliasing); 1: no more than one anywhere
    contrast: float = 0.05  # difference between neighbours, of the displayed range, from which on they look different
    world: str = "simple"
    pictures: str = ""
    empty: bool = False


@dataclass(frozen=True)
class Rendering:
    """One picture with its truth (h, w pixels, K keypoints; NaN marks what does not exist).

    image:       (h, w, 3) uint8;  mask: (h, w) bool, visible object pixels;  amodal_mask: (h, w) bool, without occluders
    depth:       (h, w) float32, z in metres, whole scene;  disparity: (h, w) float32, what a monocular network would say
    canonical:   (h, w, 3) float32, place of the surface point on the category's template; NaN off the object
    matrix:      (3, 3) intrinsics in pixels;  ``x_cam = scale * rotation @ X + translation`` in metres
    keypoints_3d: (K, 3) camera frame, metres;  keypoints_2d: (K, 2) pixels (also outside of the picture)
    visible:     (K,) bool, in the picture and neither hidden by the object itself nor by an occluder
    shape:       (K, 3) keypoints in the object frame;  azimuth, elevation, roll: degrees
    truncated, occluded: bool;  box: (4,) x1, y1, x2, y2 of ``mask``, pixels (NaN if nothing is visible)
    world: where the instance comes from
    """

    category: str
    instance_seed: int
    view_seed: int
    image: np.ndarray
    mask: np.ndarray
    amodal_mask: np.ndarray
    depth: np.ndarray
    disparity: np.ndarray
    canonical: np.ndarray
    matrix: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    scale: float
    keypoints_3d: np.ndarray
    keypoints_2d: np.ndarray
    visible: np.ndarray
    shape: np.ndarray
    azimuth: float
    elevation: float
    roll: float
    truncated: bool
    occluded: bool
    box: np.ndarray
    world: str = "simple"


def sample_rendering(
    category: str, instance_seed: int, view_seed: int, size: int | tuple[int, int] = 256, config: RenderConfig = RenderConfig()
) -> Rendering:  # noqa: B008 (frozen)
    """A random picture of instance ``instance_seed``; equal arguments give equal pixels.

    ``size``: side of a square picture, or (height, width), in pixels.
    """
    instance = make_instance(category, instance_seed, config.world)
    rng = generator("view", category, instance_seed, view_seed)
    kind = varied(config.view, category, rng) if config.world == "varied" else config.view
    view = random_view(instance, rng, size, kind)
    return render(instance, view, view_seed, config)


def render(instance: Instance, view: View, seed: int, config: RenderConfig = RenderConfig()) -> Rendering:  # noqa: B008 (frozen)
    """Renders an instance in a given view; ``seed`` decides everything else (surroundings, textures, light, camera, disparity)."""
    rng = generator("scene", instance.category, instance.seed, seed)
    surroundings, effects = _scene(instance, view, rng, config)
    return _render(instance, view, surroundings, effects, seed, config)


def _scene(instance: Instance, view: View, rng: np.random.Generator, config: RenderConfig) -> tuple[Surroundings, CameraEffects]:
    """(surroundings, camera effects) of the world that ``config`` asks for."""
    if config.world == "varied":
        return varied_surroundings(instance, view, rng, config.scene, picture_bank(config.pictures)), varied_effects(rng)
    return random_surroundings(instance, view, rng, config.scene), random_effects(rng)


def orbit(
    instance: Instance, count: int, size: int | tuple[int, int] = 256, seed: int = 0, config: RenderConfig = RenderConfig(), **motion: Any
) -> Iterator[Rendering]:  # noqa: B008 (frozen)
    """Yields ``count`` renderings of a smooth sequence: the object turns in front of a fixed scene.

    ``motion``: turns, focal, fill, elevation; see :func:`~semalign3d_core.datasets.synthetic.viewpoints.orbit_views`.
    """
    views = orbit_views(instance, count, size, **motion)
    rng = generator("scene", instance.category, instance.seed, seed)
    surroundings, effects = _scene(instance, views[0], rng, config)
    for number, view in enumerate(views):
        yield _render(instance, view, surroundings, effects.next_frame(number), seed, config)


class _Tracer:
    """A triangle soup that rays can be shot at. Rays start in the camera; their z component is 1, so distances are depths."""

    def __init__(self, triangles: np.ndarray) -> None:
        try:
            from embreex import rtcore_scene
            from embreex.mesh_construction import TriangleMesh
        except ImportError as error:
            raise MissingDependencyError("rendering needs embreex: pip install 'semalign3d[synth]'") from error
        self.scene = rtcore_scene.EmbreeScene()
        self.mesh = TriangleMesh(self.scene, np.ascontiguousarray(triangles, dtype=np.float32))

    def hits(self, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(triangle or -1, depth, corner weights (N, 3)) of the first hit along ``rays`` (N, 3) from the origin."""
        rays = np.ascontiguousarray(rays, dtype=np.float32)
        found = self.scene.run(np.zeros_like(rays), rays, output=1)
        u, v = found["u"], found["v"]
        return found["primID"], found["tfar"], np.stack([1 - u - v, u, v], -1)

    def blocked(self, points: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """(N,) bool: whether something lies in ``direction`` (3,) of the points (N, 3)."""
        points = np.ascontiguousarray(points, dtype=np.float32)
        rays = np.ascontiguousarray(np.broadcast_to(direction, points.shape), dtype=np.float32)
        return self.scene.run(points, rays, query="OCCLUDED") != -1


@dataclass(frozen=True)
class _Soup:
    """Object and surroundings as one list of triangles. Single precision where only colours depend on it: that is half the time."""

    triangles: np.ndarray
    normals: np.ndarray
    owner: np.ndarray
    material: np.ndarray
    texture: np.ndarray  # (T, 3, 3) texture coordinates of the corners
    tracer: _Tracer
    solid: np.ndarray  # (T,) bool: of the surroundings, and not of glass
    place: tuple  # (rotation, translation, diameter) of the object

    def to_object(self, points: np.ndarray) -> np.ndarray:
        """Camera-frame points (N, 3) in the object's frame."""
        rotation, translation, diameter = self.place
        return (points - translation) @ rotation / diameter

    @cached_property
    def behind(self) -> "_Soup":
        """What is seen through glass: the surroundings that are not of glass themselves."""
        kept = {name: getattr(self, name)[self.solid] for name in ("triangles", "normals", "owner", "material", "texture", "solid")}
        return _Soup(**kept, tracer=_Tracer(kept["triangles"]), place=self.place)


def _render(
    instance: Instance, view: View, surroundings: Surroundings, effects: CameraEffects, seed: int, config: RenderConfig
) -> Rendering:
    soup = _soup(instance, view, surroundings, config.empty)
    height, width = view.height, view.width
    rays = _rays(view)
    triangle, depth, weights = hits = soup.tracer.hits(rays)
    owner = np.where(triangle >= 0, soup.owner[triangle], -1)
    mask = owner == OBJECT
    canonical = np.full((height * width, 3), np.nan, dtype=np.float32)
    canonical[mask] = _interpolate(instance.canonical[instance.faces][triangle[mask]], weights[mask])
    depth = np.where(triangle >= 0, depth, np.nan).astype(np.float32).reshape(height, width)
    amodal = mask | _behind_occluder(instance, view, owner == OCCLUDER)
    mask, amodal = mask.reshape(height, width), amodal.reshape(height, width)
    keypoints = view.to_camera(instance.keypoints, instance.diameter)
    pixels = view.project(keypoints)
    return Rendering(
        category=instance.category,
        instance_seed=instance.seed,
        view_seed=seed,
        image=develop(_radiance(soup, view, surroundings, rays, hits, config), effects),
        mask=mask,
        amodal_mask=amodal,
        depth=depth,
        disparity=monocular_disparity(depth, mask, generator("disparity", instance.seed, seed), config.disparity),
        canonical=canonical.reshape(height, width, 3),
        matrix=view.matrix,
        rotation=view.rotation,
        translation=view.translation,
        scale=instance.diameter,
        keypoints_3d=keypoints,
        keypoints_2d=pixels,
        visible=_visible(instance, view, soup.tracer, keypoints, pixels),
        shape=instance.keypoints,
        azimuth=view.azimuth % 360,
        elevation=view.elevation,
        roll=view.roll,
        truncated=_leaves_picture(instance, view),
        occluded=bool((amodal & ~mask).sum() > 0.01 * max(amodal.sum(), 1)),
        box=_box(mask),
        world=config.world,
    )


def _soup(instance: Instance, view: View, surroundings: Surroundings, empty: bool = False) -> _Soup:
    vertices = view.to_camera(instance.vertices, instance.diameter)
    if empty:
        vertices = vertices - 2 * vertices.max(0)[2:]  # behind the camera
    corners = vertices[instance.faces]
    first = len(surroundings.materials.gloss)
    triangles = np.concatenate([corners, surroundings.triangles])
    materials = surroundings.materials
    glass = (
        materials.glass[surroundings.material] > 0 if isinstance(materials, VariedMaterials) else np.zeros(len(surroundings.material), bool)
    )
    return _Soup(
        triangles=triangles,
        normals=np.concatenate([corner_normals(vertices, instance.faces, instance.smooth), surroundings.normals]).astype(np.float32),
        owner=np.concatenate([np.full(len(corners), OBJECT), surroundings.owner]),
        material=np.concatenate([instance.group + first, surroundings.material]),
        texture=np.concatenate([instance.vertices[instance.faces], surroundings.triangles]).astype(np.float32),
        tracer=_Tracer(triangles),
        solid=np.concatenate([np.zeros(len(corners), dtype=bool), ~glass]),
        place=(view.rotation, view.translation, instance.diameter),
    )


def _rays(view: View) -> np.ndarray:
    """Rays (h * w, 3) with z = 1 through the middles of the pixels."""
    matrix = view.matrix
    x, y = np.meshgrid((np.arange(view.width) - matrix[0, 2]) / matrix[0, 0], (np.arange(view.height) - matrix[1, 2]) / matrix[1, 1])
    return np.stack([x, y, np.ones_like(x)], -1, dtype=np.float32).reshape(-1, 3)


def _sub_rays(view: View, rays: np.ndarray, samples: int) -> np.ndarray:
    """(N, samples^2, 3) rays through the middles of the parts of the pixels that ``rays`` (N, 3) go through."""
    offset = (np.arange(samples) + 0.5) / samples - 0.5
    x, y = np.meshgrid(offset / view.matrix[0, 0], offset / view.matrix[1, 1])
    return rays[:, None] + np.stack([x, y, np.zeros_like(x)], -1, dtype=np.float32).reshape(1, -1, 3)


def _interpolate(corners: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return corners[:, 0] * weights[:, :1] + corners[:, 1] * weights[:, 1:2] + corners[:, 2] * weights[:, 2:]


def _radiance(soup: _Soup, view: View, surroundings: Surroundings, rays: np.ndarray, hits: Hits, config: RenderConfig) -> np.ndarray:
    """(h, w, 3) linear colours: of the ray through each pixel's middle, and of several where neighbours look different."""
    radiance = _shaded(soup, surroundings, rays, hits)
    if config.samples > 1:
        rough = np.flatnonzero(_differs(radiance.reshape(view.height, view.width, 3), config.contrast))
        finer = _sub_rays(view, rays[rough], config.samples).reshape(-1, 3)
        radiance[rough] = _shaded(soup, surroundings, finer, soup.tracer.hits(finer)).reshape(len(rough), -1, 3).mean(1)
    return radiance.reshape(view.height, view.width, 3)


def _differs(radiance: np.ndarray, contrast: float) -> np.ndarray:
    """(h, w) bool: pixels that differ from a neighbour, or whose neighbours differ, as displayed."""
    shown = np.sqrt(np.clip(radiance / max(np.percentile(radiance, 98), 1e-3), 0, 1))
    square = np.ones((3, 3), np.uint8)
    return (cv2.dilate(shown, square) - cv2.erode(shown, square)).max(-1) > contrast


def _shaded(soup: _Soup, surroundings: Surroundings, rays: np.ndarray, hits: Hits) -> np.ndarray:
    """(N, 3) linear colours that come along ``rays`` (N, 3), whose first ``hits`` are known."""
    triangle, depth, weights = hits
    hit = triangle >= 0
    triangle, weights, depth = triangle[hit], weights[hit], depth[hit]
    beyond, rays = rays[~hit], rays[hit]
    unit = rays / np.sqrt(dot(rays, rays))
    normals = _interpolate(soup.normals[triangle], weights)
    normals /= np.sqrt(dot(normals, normals)) + np.float32(1e-12)
    normals *= np.where(dot(normals, unit) > 0, np.float32(-1), np.float32(1))  # towards the camera: parts are seen from both sides
    points = rays * depth[:, None]
    clear = 2e-3 * depth[:, None]
    lit = ~soup.tracer.blocked(points + clear * normals - 0.5 * clear * unit, surroundings.light.direction)
    colours, gloss, power = _surface(soup, surroundings, triangle, weights)
    shaded = shade(colours, normals, unit, lit, surroundings.light, gloss, power)
    radiance = np.zeros((len(hit), 3), dtype=np.float32)
    if surroundings.environment is not None:
        radiance[~hit] = surroundings.environment.behind(beyond)
        _finish(shaded, colours, soup, surroundings, triangle, rays, normals, points)
    radiance[hit] = shaded
    return radiance


def _finish(
    shaded: np.ndarray,
    colours: np.ndarray,
    soup: _Soup,
    surroundings: Surroundings,
    triangle: np.ndarray,
    rays: np.ndarray,
    normals: np.ndarray,
    points: np.ndarray,
) -> None:
    """Adds to ``shaded`` (N, 3), in place, what only the varied world has: contact shadows, light of its own, glass and reflections."""
    environment, material, first = surroundings.environment, soup.material[triangle], len(surroundings.materials.gloss)
    ground = np.isin(material, surroundings.grounds)
    if ground.any():
        shaded[ground] *= environment.contact(soup.to_object(points[ground]))[:, None]
    unit = rays / np.sqrt(dot(rays, rays))
    facing = np.clip(-dot(normals, unit), 0.02, 1)
    for rows, table, start in ((material < first, surroundings.materials, 0), (material >= first, surroundings.object_materials, first)):
        if not isinstance(table, VariedMaterials):
            continue
        rows = np.flatnonzero(rows)
        index = material[rows] - start
        for m in np.unique(index):
            here = rows[index == m]
            if table.glow[m]:
                shaded[here] = table.glow[m] * colours[here]
            if table.glass[m]:
                bent = rays[here] + np.float32(0.25) * normals[here] * (1, 1, 0)
                seen = _shaded(soup.behind, surroundings, bent, soup.behind.tracer.hits(bent))
                seen = seen * colours[here] ** (0.35 / (facing[here] + 0.15))
                shaded[here] = table.glass[m] * seen + (1 - table.glass[m]) * shaded[here]
            if table.mirror[m]:
                share = table.mirror[m] + (1 - table.mirror[m]) * (1 - facing[here]) ** 5
                shine = environment.mirrored(unit[here] + 2 * facing[here] * normals[here])
                shine = shine * colours[here] if table.metal[m] else shine
                shaded[here] = (1 - share) * shaded[here] + share * shine


def _surface(
    soup: _Soup, surroundings: Surroundings, triangle: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colour (N, 3), gloss (N,) and power (N,) at hits."""
    first = len(surroundings.materials.gloss)
    points, material = _interpolate(soup.texture[triangle], weights), soup.material[triangle]
    colours = np.empty((len(triangle), 3), dtype=np.float32)
    gloss, power = (np.empty(len(triangle), dtype=np.float32) for _ in range(2))
    for rows, table, start in ((material < first, surroundings.materials, 0), (material >= first, surroundings.object_materials, first)):
        index = material[rows] - start
        colours[rows] = table.colours(index, points[rows])
        gloss[rows], power[rows] = table.gloss[index], table.power[index]
    return colours, gloss, power


def _behind_occluder(instance: Instance, view: View, covered: np.ndarray) -> np.ndarray:
    """(N,) bool: pixels that show an occluder and would show the object without it."""
    result = np.zeros(len(covered), dtype=bool)
    if covered.any():
        alone = _Tracer(view.to_camera(instance.vertices, instance.diameter)[instance.faces])
        result[covered] = alone.hits(_rays(view)[covered])[0] >= 0
    return result


def _visible(instance: Instance, view: View, tracer: _Tracer, keypoints: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    tolerance = CATEGORIES[instance.category].surface_tolerance * instance.diameter
    present = np.isfinite(keypoints).all(1)
    rays = np.where(present[:, None], keypoints / keypoints[:, 2:], (0, 0, 1))
    triangle, depth, _ = tracer.hits(rays)
    free = (triangle < 0) | (depth > keypoints[:, 2] - tolerance)
    inside = (pixels >= 0).all(1) & (pixels[:, 0] <= view.width - 1) & (pixels[:, 1] <= view.height - 1)
    return present & free & inside & _faces_camera(instance, view)


def _faces_camera(instance: Instance, view: View) -> np.ndarray:
    """(K,) bool: False for keypoints that exist on one side only, seen from the other side."""
    definition = CATEGORIES[instance.category]
    camera = view.camera_position(instance.diameter) - np.nan_to_num(instance.keypoints)
    camera /= np.linalg.norm(camera, axis=1, keepdims=True)
    faces = np.ones(len(definition.names), dtype=bool)
    for start, (direction, degrees) in definition.facing.items():
        rows = [k for k, name in enumerate(definition.names) if name.startswith(start)]
        faces[rows] = camera[rows] @ np.asarray(direction) > np.cos(np.deg2rad(degrees))
    return faces


def _leaves_picture(instance: Instance, view: View) -> bool:
    pixels = view.project(view.to_camera(instance.vertices, instance.diameter))
    low, high = pixels.min(0), pixels.max(0)
    return bool((low < -0.5).any() or high[0] > view.width - 0.5 or high[1] > view.height - 0.5)


def _box(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return np.full(4, np.nan)
    return np.array([columns[0], rows[0], columns[-1], rows[-1]], dtype=float)
