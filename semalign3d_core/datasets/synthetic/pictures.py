"""Pictures that the varied world hangs behind and onto things: photographs from a folder, and procedural ones that are always there."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.files import files_below

SIDE = 128  # of procedural pictures
LONGEST = 400  # side of photographs in memory
MOST = 300  # photographs in memory
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class Bank:
    """Pictures as a display shows them, uint8.

    photographs: [(h, w, 3)];  patterns: [(128, 128)] grey, repeat without a seam for most;  prints, screens: [(128, 128, 3)]
    """

    photographs: list
    patterns: list
    prints: list
    screens: list

    def photograph(self, rng: np.random.Generator) -> np.ndarray | None:
        """A random cut of a photograph, about square and at least two fifths of it, or None."""
        if not self.photographs:
            return None
        picture = self.photographs[rng.integers(len(self.photographs))]
        side = int(min(picture.shape[:2]) * rng.uniform(0.4, 1.0))
        y, x = (int(rng.integers(0, extent - side + 1)) for extent in picture.shape[:2])
        cut = picture[y : y + side, x : x + side]
        return cut[:, ::-1] if rng.random() < 0.5 else cut


@cache
def picture_bank(folder: str = "") -> Bank:
    """The :class:`Bank` with the photographs of ``folder`` and below it; "" takes scikit-image's if that package is installed."""
    rng = np.random.default_rng(25)
    patterns = [make(rng) for make in (_wood, _wood, _weave, _noise, _noise, _noise, _bricks, _tiles, _planks, _speckle) for _ in range(3)]
    return Bank(_photographs(folder), patterns, [_print(rng) for _ in range(40)], [_screen(rng) for _ in range(30)])


def linear(picture: np.ndarray) -> np.ndarray:
    """A displayed picture (uint8) as linear float32."""
    return (np.asarray(picture, dtype=np.float32) / 255) ** 2.2


def _photographs(folder: str) -> list[np.ndarray]:
    if folder:
        paths = [p for p in files_below(Path(folder)) if p.suffix.lower() in SUFFIXES]
        if not paths:
            raise InputError(f"{folder} holds no photographs ({', '.join(SUFFIXES)}); give another folder or none")
    else:
        paths = _scikit_image()
    chosen = np.random.default_rng(0).permutation(len(paths))[:MOST]
    return [picture for n in sorted(chosen) if (picture := _small(paths[n])) is not None]


def _scikit_image() -> list[Path]:
    """Everyday pictures in the public domain (CC0) that scikit-image brings along."""
    try:
        from skimage import data
    except ImportError:
        return []
    folder = Path(data.__file__).parent
    names = ("astronaut", "brick", "camera", "chelsea", "grass", "gravel", "rocket")
    return [path for name in names for path in sorted(folder.glob(f"{name}.*")) if path.suffix in SUFFIXES]


def _small(path: Path) -> np.ndarray | None:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None or min(picture.shape[:2]) < 64:
        return None
    scale = min(1.0, LONGEST / max(picture.shape[:2]))
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[..., ::-1]


def fractal(rng: np.random.Generator, side: int = SIDE, octaves: tuple = (4, 8, 16, 32, 64), fall: float = 0.6) -> np.ndarray:
    """(side, side) noise with values from 0 to 1."""
    layers = [cv2.resize(rng.normal(size=(cells, cells)), (side, side), interpolation=cv2.INTER_CUBIC) for cells in octaves]
    total = sum((fall**n * layer for n, layer in enumerate(layers)), np.zeros((side, side)))
    return (total - total.min()) / np.ptp(total)


def _grey(values: np.ndarray) -> np.ndarray:
    return (255 * np.clip(values, 0, 1)).astype(np.uint8)


def _wood(rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    bend = fractal(rng, octaves=(2, 4, 8))
    rings = np.sin(2 * np.pi * (rng.uniform(4, 12) * x + 2.5 * bend + 0.3 * y))
    grain = cv2.resize(rng.normal(size=(8, SIDE)), (SIDE, SIDE))
    return _grey(0.55 + 0.25 * rings + 0.12 * grain)


def _weave(rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    step = int(rng.choice([4, 8, 16]))
    over = ((x // step + y // step) % 2) * 2 - 1
    thread = np.where(over > 0, np.sin(np.pi * (x % step + 0.5) / step), np.sin(np.pi * (y % step + 0.5) / step))
    return _grey(0.25 + 0.2 * over + 0.45 * thread + rng.normal(0, 0.05, (SIDE, SIDE)))


def _noise(rng: np.random.Generator) -> np.ndarray:
    return _grey(fractal(rng, fall=rng.uniform(0.5, 1.1)))


def _speckle(rng: np.random.Generator) -> np.ndarray:
    return _grey(0.5 + cv2.GaussianBlur(rng.normal(0, 0.5, (SIDE, SIDE)), (0, 0), rng.uniform(0.6, 1.5)))


def _bricks(rng: np.random.Generator) -> np.ndarray:
    rows, columns = int(rng.choice([8, 16])), int(rng.choice([4, 8]))
    high, wide = SIDE // rows, SIDE // columns
    tone = rng.normal(0.6, 0.12, (rows, columns))
    picture = 0.15 + 0.05 * rng.normal(size=(SIDE, SIDE))
    for r in range(rows):
        for c in range(columns):
            columns_here = (np.arange(wide - 1) + c * wide + (r % 2) * wide // 2) % SIDE
            picture[np.ix_(np.arange(r * high, (r + 1) * high - 1), columns_here)] = tone[r, c]
    return _grey(picture + rng.normal(0, 0.05, (SIDE, SIDE)))


def _tiles(rng: np.random.Generator) -> np.ndarray:
    step = int(rng.choice([16, 32, 64]))
    tone = np.kron(rng.normal(0.75, rng.choice([0.02, 0.2]), (SIDE // step, SIDE // step)), np.ones((step, step)))
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    return _grey(np.where((x % step == 0) | (y % step == 0), 0.2, tone) + 0.1 * fractal(rng))


def _planks(rng: np.random.Generator) -> np.ndarray:
    wide = int(rng.choice([16, 32]))
    picture = np.concatenate([np.roll(_wood(rng)[:, :wide], rng.integers(SIDE), 0) * rng.uniform(0.7, 1.1) for _ in range(SIDE // wide)], 1)
    picture[:, ::wide] = 40
    return _grey(picture / 255)


_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_SCRIPT_COMPLEX)


def _colour(rng: np.random.Generator, low: int = 0, high: int = 256) -> tuple[int, ...]:
    return tuple(int(v) for v in rng.integers(low, high, 3))


def _words(
    picture: np.ndarray, rng: np.random.Generator, ink: tuple[int, ...], top: int, bottom: int, left: int = 4, right: int = SIDE - 4
) -> None:
    """Lines of random letters between two heights."""
    y = top
    while y < bottom:
        size = rng.choice([0.25, 0.3, 0.5, 0.9])
        word = "".join(rng.choice(list("ABCDEFGHIKLMNORSTUabcdehilmnorstu 0123"), int((right - left) / (20 * size))))
        y += int(26 * size) + int(rng.integers(1, 6))
        x = left + int(rng.integers(0, 10))
        cv2.putText(picture, word, (x, y), _FONTS[rng.integers(4)], float(size), ink, 1 if size < 0.8 else 2, cv2.LINE_AA)


def _print(rng: np.random.Generator) -> np.ndarray:
    """A label, advertisement or decoration: paper, frame, emblem, words."""
    paper = _colour(rng, 190, 256) if rng.random() < 0.6 else _colour(rng)
    ink = _colour(rng, 0, 110) if sum(paper) > 380 else _colour(rng, 170, 256)
    picture = np.full((SIDE, SIDE, 3), paper, dtype=np.uint8)
    accent = _colour(rng)
    if rng.random() < 0.5:
        low = int(rng.integers(0, 100))
        picture[low : low + int(rng.integers(8, 50))] = accent
    if rng.random() < 0.4:
        cv2.rectangle(picture, (5, 5), (SIDE - 6, SIDE - 6), ink, int(rng.integers(1, 4)))
    for _ in range(rng.integers(0, 3)):
        centre, radius = tuple(int(v) for v in rng.integers(25, 103, 2)), int(rng.integers(8, 28))
        if rng.random() < 0.5:
            cv2.circle(picture, centre, radius, accent, -1, cv2.LINE_AA)
        else:
            corners = (np.array(centre) + rng.normal(0, radius, (5, 2))).astype(np.int32)
            cv2.fillPoly(picture, [corners], _colour(rng), cv2.LINE_AA)
    if rng.random() < 0.85:
        top = int(rng.integers(0, 60))
        _words(picture, rng, ink, top, top + int(rng.integers(10, 65)))
    return picture


def _screen(rng: np.random.Generator) -> np.ndarray:
    """What a screen shows: windows and words, or a scene of soft shapes."""
    if rng.random() < 0.5:
        picture = np.full((SIDE, SIDE, 3), _colour(rng, 20, 200), dtype=np.uint8)
        for _ in range(rng.integers(1, 4)):
            x, y = (int(v) for v in rng.integers(0, 70, 2))
            w, h = (int(v) for v in rng.integers(40, 110, 2))
            paper = _colour(rng, 200, 256)
            cv2.rectangle(picture, (x, y), (x + w, y + h), paper, -1)
            cv2.rectangle(picture, (x, y), (x + w, y + 7), _colour(rng), -1)
            _words(picture, rng, _colour(rng, 0, 120), y + 6, min(y + h - 8, 115), x + 3, min(x + w, SIDE))
        return picture
    low, high = np.array(_colour(rng, 0, 120)), np.array(_colour(rng, 80, 256))
    blend = np.clip(fractal(rng, octaves=(2, 3, 6)) + np.linspace(-0.3, 0.3, SIDE)[:, None], 0, 1)[..., None]
    picture = (low * (1 - blend) + high * blend).astype(np.uint8)
    for _ in range(rng.integers(1, 6)):
        centre, axes = tuple(int(v) for v in rng.integers(0, SIDE, 2)), tuple(int(v) for v in rng.integers(5, 40, 2))
        cv2.ellipse(picture, centre, axes, float(rng.uniform(0, 180)), 0, 360, _colour(rng), -1, cv2.LINE_AA)
    return cv2.GaussianBlur(picture, (0, 0), 1.0)
