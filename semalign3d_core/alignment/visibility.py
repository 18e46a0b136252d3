"""What of an aligned object is seen: self-occlusion, the picture's border, things in front, and metric scale.

Everything has fixed shapes: what does not count has weight 0 instead of being left out, so that nothing is read back.
"""

import torch

BUFFER = 14  # cells of the depth buffer along the longer side of the projected cloud
BEHIND = 0.12  # how far behind the front a point may be and still be seen, in object diameters
HIDDEN = 0.2  # how far in front of a point the depth map must be to hide it, in object diameters
TRIM = 0.15  # relative deviation from the median at which a depth reading no longer counts
FEWEST = 8  # readings that a robust fit needs


def front_most(projected, depth, queries=None, query_depth=None, diameter=0.4):
    """(B, Q) bool: points that a coarse depth buffer of the cloud does not hide.

    projected: (B, P, 2), depth: (B, P) of the cloud; queries (B, Q, 2), query_depth (B, Q), the cloud itself if None;
    diameter: of the object, in the unit of depth.
    """
    low, high = projected.amin(1, keepdim=True), projected.amax(1, keepdim=True)
    step = ((high - low).amax(-1, keepdim=True) / BUFFER).clamp(min=1e-9)

    def cells(points):
        cell = ((points - low) / step).floor().clamp(0, BUFFER)
        return (cell[..., 1] * (BUFFER + 1) + cell[..., 0]).long()

    buffer = torch.full((len(projected), (BUFFER + 1) ** 2), torch.inf, dtype=depth.dtype, device=depth.device)
    buffer = buffer.scatter_reduce(1, cells(projected), depth, "amin")
    queries, query_depth = (projected, depth) if queries is None else (queries, query_depth)
    return query_depth <= buffer.gather(1, cells(queries)) + BEHIND * diameter


def behind_depth_map(seen, depth, usable, seen_here, depth_here, diameter):
    """(K,) bool: points that something in front of them hides, by a depth map of unknown affine scale.

    seen: (P,) inverse depth of the map at the points of the cloud, NaN where unknown; depth: (P,) their z, and which of them are
    ``usable`` (P,), that is seen on the object; seen_here, depth_here: (K,) the same of the points in question. The map is brought
    to 1/z by a robust line through the usable points.
    """
    usable = usable & torch.isfinite(seen)
    slope, offset = robust_line(seen.nan_to_num(), 1 / depth, usable.to(depth))
    surface = 1 / (slope * seen_here.nan_to_num() + offset).clamp(min=1e-6)
    enough = (usable.sum() >= FEWEST) & (slope > 0)
    return enough & torch.isfinite(seen_here) & (surface < depth_here - HIDDEN * diameter)


def robust_line(x, y, trust, rounds=2):
    """Slope and offset () of a rising y = slope x + offset by least squares with weights ``trust`` (N,), reweighted with a Cauchy weight.

    It begins with the line through the quartiles, for readings on something in front lie far out and would tilt a plain fit.
    """
    usable, both = trust > 0, torch.stack([x, y])
    quartiles = masked_quartiles(both, usable)
    centre, extent = quartiles[:, 1], quartiles[:, 2] - quartiles[:, 0]
    x, y = (both - centre[:, None]).unbind(0)  # about the medians, so that sums of squares lose no digits
    slope, offset = extent[1] / extent[0].clamp(min=1e-12), torch.zeros_like(extent[0])
    moments = torch.stack([torch.ones_like(x), x, y, x * x, x * y])
    for _ in range(rounds):
        residual = torch.addcmul(y - offset, slope, x, value=-1).abs()
        weight = trust / (1 + (residual / masked_quartiles(residual, usable)[1].clamp(min=1e-6)).square())
        total, sum_x, sum_y, sum_xx, sum_xy = (moments @ weight).unbind(0)
        slope = (total * sum_xy - sum_x * sum_y) / (total * sum_xx - sum_x * sum_x).clamp(min=1e-12)
        offset = (sum_y - slope * sum_x) / total.clamp(min=1e-9)
    return slope, offset + centre[1] - slope * centre[0]


def masked_quartiles(values, usable):
    """(..., 3) lower quartiles of the usable (N,) ones of values (..., N); 0 if there are none."""
    ordered = torch.where(usable, values, torch.inf).sort().values
    last = (usable.sum() - 1).clamp(min=0)
    index = torch.arange(1, 4, device=last.device) * last // 4
    return ordered.index_select(-1, index).nan_to_num(posinf=0.0)


def metric_scale(seen, depth, usable):
    """() factor from the camera frame of points with z = depth (P,) to metres by readings ``seen`` (P,) in metres at their pixels; NaN
    if too little is seen.

    Median of the ratios, then the mean of those near it: holes, background and things in front do not count.
    """
    usable = usable & torch.isfinite(seen) & (seen > 0)
    ratio = torch.where(usable, seen, 1.0) / depth
    near = usable & ((ratio / masked_quartiles(ratio, usable)[1].clamp(min=1e-9) - 1).abs() < TRIM)
    mean = (ratio * near).sum() / near.sum().clamp(min=1)
    return torch.where(usable.sum() >= FEWEST, mean, torch.nan)
