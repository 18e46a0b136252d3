"""What surrounds an object: a wall, a floor, clutter that looks like objects, and occluders. Everything in the camera frame, metres."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from semalign3d_core.datasets.synthetic.appearance import Light, Materials, random_light, random_materials
from semalign3d_core.datasets.synthetic.primitives import Part, hexahedron, loft, revolve, tube

OBJECT, BACKGROUND, OCCLUDER = 0, 1, 2


@dataclass(frozen=True)
class SceneConfig:
    """How crowded scenes are: rates are shares of images, counts are inclusive ranges."""

    clutter: tuple = (3, 9)
    floor_rate: float = 0.5
    occluder_rate: float = 0.2
    occluder_size: tuple = (0.20, 0.45)  # of the object's box
    unit_texture: float = 0.35  # length scale of textures, in object diameters


@dataclass(frozen=True)
class Surroundings:
    """Everything but the object (T triangles).

    triangles: (T, 3, 3) camera frame;  normals: (T, 3, 3) unit, per corner;  owner: (T,) BACKGROUND or OCCLUDER
    material:  (T,) index into ``materials``;  materials of the object's groups follow from ``object_materials`` on
    environment: of the varied world, else None;  grounds: materials on which the object's contact shadow lies
    """

    triangles: np.ndarray
    normals: np.ndarray
    owner: np.ndarray
    material: np.ndarray
    materials: Materials
    object_materials: Materials
    light: Light
    environment: Any = None
    grounds: tuple = ()

    def with_environment(self, environment: Any, object_materials: Any, grounds: tuple[int, ...] = ()) -> "Surroundings":
        """The same with an environment, other materials of the object, and the numbers of the materials it casts contact shadows on."""
        return replace(self, environment=environment, object_materials=object_materials, grounds=grounds)


def corner_normals(vertices: np.ndarray, faces: np.ndarray, smooth: np.ndarray) -> np.ndarray:
    """(F, 3, 3) unit normals at the corners of every triangle: interpolated where ``smooth`` (F,), else the triangle's own."""
    corners = vertices[faces]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    mean = np.stack([np.bincount(faces.ravel(), np.repeat(flat[:, k], 3), len(vertices)) for k in range(3)], -1)
    normals = np.where(smooth[:, None, None], mean[faces], flat[:, None])
    return normals / (np.linalg.norm(normals, axis=-1, keepdims=True) + 1e-12)


def random_surroundings(instance: Any, view: Any, rng: np.random.Generator, config: SceneConfig = SceneConfig()) -> Surroundings:  # noqa: B008 (frozen)
    """Draws the :class:`Surroundings` of an object seen in ``view``."""
    diameter = instance.diameter
    points = view.to_camera(instance.vertices, diameter)
    pixels = view.project(points)
    box = np.array([*pixels.min(0), *pixels.max(0)])
    near, far = points[:, 2].min(), points[:, 2].max()
    wall = far + diameter * np.exp(rng.uniform(np.log(0.35), np.log(6.0)))
    pieces = [_wall(view, wall, rng)]
    camera = view.camera_position(diameter) - (0, instance.vertices[:, 1].min(), 0)
    upright = view.rotation[1, 1] < -0.1 and camera[1] > 0.12 * np.linalg.norm(camera)  # seen from clearly above the floor
    if upright and rng.random() < config.floor_rate:
        pieces.append(_floor(instance, view, wall))
    owners = [BACKGROUND] * len(pieces)
    for _ in range(rng.integers(config.clutter[0], config.clutter[1] + 1)):
        pieces.append(_clutter(view, box, (near, far, wall), diameter, rng))
        owners.append(BACKGROUND)
    if rng.random() < config.occluder_rate:
        pieces.append(_occluder(view, box, near, config.occluder_size, rng))
        owners.append(OCCLUDER)
    return _assemble(pieces, owners, diameter, rng, int(instance.group.max()) + 1, config)


def occluder(instance: Any, view: Any, sizes: tuple[float, float], rng: np.random.Generator) -> list:
    """Parts of a thing in front of an object."""
    points = view.to_camera(instance.vertices, instance.diameter)
    pixels = view.project(points)
    return _occluder(view, np.array([*pixels.min(0), *pixels.max(0)]), points[:, 2].min(), sizes, rng)


def gathered(pieces: list[list], owners: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(triangles, corner normals, owners, material numbers) of ``pieces``, lists of parts, every part with a material of its own."""
    triangles, normals, owner, material = [], [], [], []
    count = 0
    for parts, who in zip(pieces, owners, strict=True):
        for part in parts:
            triangles.append(part.vertices[part.faces])
            normals.append(corner_normals(part.vertices, part.faces, np.full(len(part.faces), part.smooth)))
            owner.append(np.full(len(part.faces), who))
            material.append(np.full(len(part.faces), count))
            count += 1
    if not triangles:
        return np.empty((0, 3, 3)), np.empty((0, 3, 3)), np.empty(0, dtype=int), np.empty(0, dtype=int)
    return np.concatenate(triangles), np.concatenate(normals), np.concatenate(owner), np.concatenate(material)


def _assemble(
    pieces: list[list], owners: list[int], diameter: float, rng: np.random.Generator, groups: int, config: SceneConfig
) -> Surroundings:
    triangles, normals, owner, material = gathered(pieces, owners)
    count = int(material.max()) + 1
    return Surroundings(
        triangles,
        normals,
        owner,
        material,
        random_materials(rng, count, config.unit_texture * diameter * np.exp(rng.uniform(0, 1.5, (count, 1, 1)))),
        random_materials(rng, groups, config.unit_texture),
        random_light(rng),
    )


def _wall(view: Any, depth: float, rng: np.random.Generator) -> list[Part]:
    """A large plane behind everything, tilted by up to 25 degrees."""
    reach = 4.0 * depth / view.focal + depth
    slope = np.tan(np.deg2rad(rng.uniform(-25, 25, 2)))
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * reach
    limit = 0.3 / view.half_extent.sum()  # within the picture the tilted wall stays beyond three quarters of its distance
    slope = np.clip(slope, -limit, limit)
    quad = np.column_stack([corners, depth + corners @ slope])
    return [hexahedron("wall", "wall", quad + (0, 0, 0.01 * depth), quad)]


def _floor(instance: Any, view: Any, wall: float) -> list[Part]:
    """The plane the object stands on, up to the wall."""
    low = instance.vertices[:, 1].min() - 0.002
    reach = 3.0 * wall / instance.diameter
    quad = np.array([(-reach, low, -reach), (reach, low, -reach), (reach, low, reach), (-reach, low, reach)])
    thick = np.array([0, 0.01, 0])
    return [hexahedron("floor", "floor", view.to_camera(quad - thick, instance.diameter), view.to_camera(quad, instance.diameter))]


def _clutter(view: Any, box: np.ndarray, depths: tuple[float, float, float], diameter: float, rng: np.random.Generator) -> list[Part]:
    """An object-like thing beside or behind the object."""
    near, far, wall = depths
    share = rng.uniform(0.06, 0.4)  # apparent size, of the longer image side
    pixel = rng.uniform((-0.1 * view.width, -0.1 * view.height), (1.1 * view.width, 1.1 * view.height))
    margin = 0.7 * share * max(view.height, view.width)
    beside = np.any(pixel < box[:2] - margin) or np.any(pixel > box[2:] + margin)
    depth = rng.uniform(near, far) if beside and rng.random() < 0.5 else rng.uniform(far, max(wall, far + 0.2 * diameter))
    size = share * depth / view.focal
    if not beside:
        depth += 0.8 * size  # the thing reaches about that far towards the camera
    return _blob(view.back_project(pixel, depth), size, rng)


def _occluder(view: Any, box: np.ndarray, near: float, sizes: tuple[float, float], rng: np.random.Generator) -> list[Part]:
    """An object-like thing in front of a part of the object's box, nearer than all of it."""
    extent = (box[2:] - box[:2]).max()
    pixel = box[:2] + rng.uniform(-0.05, 1.05, 2) * (box[2:] - box[:2])
    towards = 0.5 * (box[:2] + box[2:]) - pixel
    pixel = pixel - 0.25 * towards  # rather at the rim than in the middle
    pixel = np.clip(pixel, 0, [view.width, view.height])
    depth = near * rng.uniform(0.55, 0.8)
    size = rng.uniform(*sizes) * extent * depth / (view.focal * max(view.height, view.width))
    return _blob(view.back_project(pixel, depth), min(size, 0.4 * near), rng)


def _blob(centre: np.ndarray, size: float, rng: np.random.Generator) -> list[Part]:
    """One to three random solids, turned at random, together about ``size`` large."""
    parts = []
    for number in range(rng.integers(1, 4)):
        part = _solid(rng)
        axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        offset = np.zeros(3) if number == 0 else rng.normal(0, 0.3, 3)
        scale = size * (0.5 if number == 0 else rng.uniform(0.2, 0.4))
        vertices = scale * (part.vertices @ axes.T + offset) + centre
        parts.append(type(part)(part.name, vertices, part.faces, part.group, part.smooth))
    return parts


def _solid(rng: np.random.Generator) -> Part:
    """A random solid of about unit radius: block, turned body, ellipsoid, ring or bent rod."""
    kind = rng.integers(5)
    if kind == 0:
        quad = np.array([(-1, 0, -1), (1, 0, -1), (1, 0, 1), (-1, 0, 1)]) * np.append(rng.uniform(0.2, 0.8, 2), 1)[[0, 2, 1]]
        height = rng.uniform(0.2, 0.9)
        return hexahedron("block", "", quad - (0, height, 0), quad * rng.uniform(0.5, 1) + (0, height, 0))
    if kind == 1:
        radius = np.clip(0.4 + 0.15 * np.cumsum(rng.normal(size=7)), 0.1, 0.9)
        return revolve("turned", "", np.column_stack([radius, np.linspace(-1, 1, 7)]), around=18)
    if kind == 2:
        turn = np.linspace(0.02, np.pi - 0.02, 12)
        ball = revolve("ellipsoid", "", np.column_stack([np.sin(turn), -np.cos(turn)]), around=18)
        return type(ball)(ball.name, ball.vertices * rng.uniform(0.3, 1, 3), ball.faces, "", True)
    turn = np.linspace(0, rng.uniform(0.5, 1.9) * np.pi, 16)
    path = np.column_stack([np.cos(turn), np.sin(turn), np.zeros(16)])
    if kind == 3:
        return tube("ring", "", path * 0.8, rng.uniform(0.06, 0.25), around=9)
    rod = np.column_stack([np.linspace(-1, 1, 8), 0.3 * np.sin(np.linspace(0, rng.uniform(1, 6), 8)), np.zeros(8)])
    width, height = rng.uniform(0.05, 0.3, 2)
    section = np.array([(0, -height, -width), (0, height, -width), (0, height, width), (0, -height, width)])
    return loft("rod", "", rod[:, None] + section, smooth=False)
