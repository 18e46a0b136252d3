"""The instance matching distance (IMD): how far the object in one image is from that in another, by their features.

Source: GeoAware-SC (Telling Left from Right, CVPR 2024), section 3.2. Tokens are (cells * cells, C), row-major.
"""

import torch

CHUNK = 512  # tokens at a time
MASKED_VALUE = -100000.0  # what the published code writes over entries that are exactly 0
CLOSE, CANDIDATES = 0.1, 3  # distance, in norms of the source, below which so many targets are compared without rounding


def masked_imd(
    source: torch.Tensor, target: torch.Tensor, source_mask: torch.Tensor, target_mask: torch.Tensor, cells: int = 64, parity: bool = False
) -> torch.Tensor:
    """Instance matching distance: mean over the source's object of the distance to the nearest feature of the target's.

    source, target: (P, C) tokens;  source_mask, target_mask: (h, w), any size, above 0.5 is object;
    cells: side of the grid on which they are compared (64 for pose alignment, 128 for pose prediction);
    parity: as published, every entry that is exactly 0 counts as masked, also inside the object (ReLU features).
    Returns a 0-d tensor; infinity when the target's mask is empty, NaN when only the source's is.
    """
    source, source_inside = _on_grid(source, source_mask, cells)
    target, target_inside = _on_grid(target, target_mask, cells)
    if parity:
        source, target = _overwrite_zeros(source, source_inside), _overwrite_zeros(target, target_inside)
        return _nearest_with_huge_values(source[source_inside], target).mean()
    if not target_inside.any():
        return source.new_tensor(torch.inf)
    return _nearest(source[source_inside], target[target_inside])[0].mean()


def distance_map(
    source: torch.Tensor, target: torch.Tensor, source_mask: torch.Tensor, target_mask: torch.Tensor, cells: int = 64
) -> torch.Tensor:
    """What :func:`masked_imd` is the mean of, where it is: (cells, cells) distances, NaN off the source's object."""
    source, source_inside = _on_grid(source, source_mask, cells)
    target, target_inside = _on_grid(target, target_mask, cells)
    found = source.new_full((cells * cells,), torch.nan)
    if target_inside.any():
        found[source_inside] = _nearest(source[source_inside], target[target_inside])[0]
    return found.reshape(cells, cells)


def _on_grid(tokens, mask, cells):
    """Tokens (cells * cells, C), bilinear, and which of them lie inside ``mask`` (cells * cells,), nearest."""
    side = round(len(tokens) ** 0.5)
    grid = tokens.T.reshape(1, -1, side, side)
    features = torch.nn.functional.interpolate(grid, size=(cells, cells), mode="bilinear", align_corners=False)
    mask = torch.as_tensor(mask).to(features)[None, None]
    inside = torch.nn.functional.interpolate(mask, size=(cells, cells), mode="nearest")
    return features[0].flatten(1).T, inside.flatten() > 0.5


def _overwrite_zeros(tokens, inside):
    masked = tokens * inside[:, None]
    return torch.where(masked == 0, MASKED_VALUE, masked)


def _nearest(source, target, chunk=CHUNK):
    """(distance, index) (P,) of the nearest row of ``target`` for each row of ``source``, a chunk at a time."""
    found = [_smallest(part, target) for part in source.split(chunk)]
    if not found or not len(source):
        return source.new_zeros(0), torch.zeros(0, dtype=torch.long)
    distances, indices = zip(*found, strict=True)
    return torch.cat(distances), torch.cat(indices)


def _smallest(part, target):
    # The expanded square is twenty times faster than differences, but loses digits for nearly equal features: it only chooses
    # the targets whose differences are looked at.
    rough = torch.cdist(part, target, compute_mode="use_mm_for_euclid_dist")
    least, nearest = rough.min(dim=1)
    close = (least < CLOSE * part.norm(dim=1)).nonzero()[:, 0]
    if len(close):
        candidates = _smallest_columns(rough[close], min(CANDIDATES, len(target)))
        best = (part[close, None] - target[candidates]).norm(dim=2).argmin(dim=1)
        nearest[close] = candidates.gather(1, best[:, None])[:, 0]
    return (part - target[nearest]).norm(dim=1), nearest


def _smallest_columns(values, count):
    """Columns (P, count) of the smallest entries of each row of ``values`` (P, Q), which is overwritten; a few passes beat a sort."""
    found = []
    for _ in range(count):
        found.append(values.argmin(dim=1, keepdim=True))
        values.scatter_(1, found[-1], torch.inf)
    return torch.cat(found, dim=1)


def _nearest_with_huge_values(source, target):
    """As :func:`_nearest`, by differences alone: beside the overwritten zeros the expanded square has no digits left."""
    pieces = [torch.cdist(part, target, compute_mode="donot_use_mm_for_euclid_dist").min(dim=1).values for part in source.split(CHUNK)]
    return torch.cat(pieces) if len(source) else source.new_zeros(0)


def mutual_nearest_distance(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mask-free variant: mean distance of the source tokens that are the nearest of their own nearest target (0-d)."""
    distance, forward = _nearest(source, target)
    _, backward = _nearest(target, source)
    return distance[backward[forward] == torch.arange(len(source), device=source.device)].mean()
