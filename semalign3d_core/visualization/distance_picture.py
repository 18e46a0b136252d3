"""Pictures of instance matching distances: where an image has nothing like it in another."""

import cv2
import numpy as np

from semalign3d_core.geometry.image_grid import SquareGrid

HEIGHT = 200  # of a panel, pixels
SHARE = 0.65  # of the colour in a panel, the rest is the picture


def distance_panel(rgb: np.ndarray, grid: SquareGrid, distances: np.ndarray, limits: tuple[float, float], text: str) -> np.ndarray:
    """A picture (h, w, 3) with ``distances`` over it (cells, cells; NaN leaves the picture), dark for near and yellow for far.

    grid: what of the picture the cells cover, whatever its own number of cells;  limits: distances of the two ends of the colours
    text: caption below.
    """
    cells = distances.shape[0]
    low, high = limits
    level = np.clip((np.nan_to_num(distances, nan=low) - low) / max(high - low, 1e-9), 0, 1)
    colour = cv2.applyColorMap((255 * level).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
    height, width = rgb.shape[:2]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    x, y = grid.offset
    place = [np.clip(((v + o + 0.5) * cells / grid.side).astype(int), 0, cells - 1) for v, o in ((columns, x), (rows, y))]
    shown, known = colour[place[1], place[0]], np.isfinite(distances)[place[1], place[0], None]
    mixed = np.where(known, SHARE * shown + (1 - SHARE) * rgb, rgb).astype(np.uint8)
    return captioned(mixed, text)


def captioned(rgb: np.ndarray, text: str) -> np.ndarray:
    """A picture of the panels' height with a line of text below it."""
    width = max(1, round(rgb.shape[1] * HEIGHT / rgb.shape[0]))
    panel = np.full((HEIGHT + 24, width, 3), 255, np.uint8)
    panel[:HEIGHT] = cv2.resize(np.ascontiguousarray(rgb), (width, HEIGHT), interpolation=cv2.INTER_AREA)
    cv2.putText(panel, text, (3, HEIGHT + 17), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return panel


def in_rows(rows: list[list[np.ndarray]]) -> np.ndarray:
    """One picture of rows of panels, filled up with white."""
    lines = [np.concatenate([np.pad(panel, ((0, 4), (0, 4), (0, 0)), constant_values=255) for panel in row], axis=1) for row in rows]
    width = max(line.shape[1] for line in lines)
    return np.concatenate([np.pad(line, ((0, 0), (0, width - line.shape[1]), (0, 0)), constant_values=255) for line in lines], axis=0)
