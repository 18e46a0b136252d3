"""Points carried from one skeleton to another tetrahedron by tetrahedron; the product keeps one row of keypoint weights per point."""


def carry(weights, coordinates, new_corners):
    """``sum_q w_q sum_c b_qc v'_qc``: weights (P, Q), coordinates (P, Q, 4), new_corners (..., Q, 4, 3) -> (..., P, 3)."""
    flat = (weights[..., None] * coordinates).flatten(1)
    return flat @ new_corners.flatten(-3, -2)
