"""What of an aligned object is seen: self-occlusion, the picture's border, things in front, and metric scale."""

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

    buffer = torch.full((len(projected), (BUFFER + 1) ** 2), torch.inf).to(depth)
    buffer = buffer.scatter_reduce(1, cells(projected), depth, "amin")
    queries, query_depth = (projected, depth) if queries is None else (queries, query_depth)
    return query_depth <= buffer.gather(1, cells(queries)) + BEHIND * diameter


def sample_map(values, pixels):
    """Nearest values of a map (h, w) at pixels (N, 2), and (N,) bool: inside the picture and finite."""
    height, width = values.shape
    nearest = pixels.round().long()
    inside = (nearest >= 0).all(-1) & (nearest[:, 0] < width) & (nearest[:, 1] < height)
    sampled = values[nearest[:, 1].clamp(0, height - 1), nearest[:, 0].clamp(0, width - 1)]
    return sampled, inside & torch.isfinite(sampled)


def behind_depth_map(inverse_depth, cloud, cloud_pixels, usable, keypoints, pixels, diameter):
    """(K,) bool: keypoints that something in front of them hides, by a depth map of unknown affine scale.

    inverse_depth: (h, w); cloud (P, 3) with pixels (P, 2) of which ``usable`` (P,) are seen on the object;
    keypoints (K, 3) with pixels (K, 2). The map is brought to 1/z by a robust line through the usable points.
    """
    seen, known = sample_map(inverse_depth, cloud_pixels)
    usable = usable & known
    if int(usable.sum()) < FEWEST:
        return torch.zeros(len(keypoints), dtype=torch.bool, device=keypoints.device)
    slope, offset = robust_line(seen[usable], 1 / cloud[usable, 2])
    here, known = sample_map(inverse_depth, pixels)
    surface = 1 / (slope * here.nan_to_num() + offset).clamp(min=1e-6)
    return known & (slope > 0) & (surface < keypoints[:, 2] - HIDDEN * diameter)


def robust_line(x, y, rounds=5):
    """Slope and offset of y = slope x + offset by least squares reweighted with a Cauchy weight."""
    weight = torch.ones_like(x)
    for _ in range(rounds):
        mean_x, mean_y = (weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()
        slope = (weight * (x - mean_x) * (y - mean_y)).sum() / (weight * (x - mean_x) ** 2).sum().clamp(min=1e-12)
        residual = (y - mean_y - slope * (x - mean_x)).abs()
        weight = 1 / (1 + (residual / residual.median().clamp(min=1e-6)) ** 2)
    return slope, mean_y - slope * mean_x


def metric_scale(depth, cloud, cloud_pixels, usable):
    """Factor from the camera frame of ``cloud`` (P, 3) to metres by a depth map (h, w) in metres; None if too little is seen.

    Median of the ratios, then the mean of those near it: holes, background and things in front do not count.
    """
    seen, known = sample_map(depth, cloud_pixels)
    usable = usable & known & (seen > 0)
    if int(usable.sum()) < FEWEST:
        return None
    ratio = seen[usable] / cloud[usable, 2]
    median = ratio.median()
    near = (ratio / median - 1).abs() < TRIM
    return float(ratio[near].mean())
