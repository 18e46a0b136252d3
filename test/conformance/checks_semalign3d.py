"""Parity vectors of the category representation: geometry, statistics, reconstruction (method, section 1)."""

import numpy as np
import torch
from compare import difference, exact
from published import cells, topology
from published.barycentric import carry
from published.beta_fit import fit
from torch.optim.optimizer import register_optimizer_step_post_hook

from semalign3d_core.category.annotations import correction as keypoint_correction
from semalign3d_core.category.published import barycentric, dense_cloud, focal, sparse
from semalign3d_core.category.published.shape import DESCENT
from semalign3d_core.category.statistics import beta, geometric_features
from semalign3d_core.category.statistics import beta_tables as statistics
from semalign3d_core.category.statistics.geometric_features import BetaTable, edge_pairs, tetrahedra, triangles_with_vertex
from semalign3d_core.category.surface import point_features
from semalign3d_core.geometry.camera import PinholeCamera, project
from semalign3d_core.geometry.rotations import similarity_alignment
from semalign3d_core.perception.evidence import DepthMap

DOUBLE = {"atol": 1e-9, "rtol": 1e-7}
EDGE_KINDS = ("edge_pair_ratios", "edge_pair_cos_angles")
TET_KINDS = ("cos_angle_x", "cos_angle_y", "cos_angle_z")


def tensors(arrays):
    """The arrays of a vector file as tensors, names unchanged."""
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def table_of(v):
    """The :class:`BetaTable` that a file's combinations and ten parameter arrays describe."""
    edge = torch.stack([v[f"{kind}_{p}"] for kind in EDGE_KINDS for p in ("alpha", "beta")], dim=-1)
    tet = torch.stack([v[f"{kind}_{p}"] for kind in TET_KINDS for p in ("alpha", "beta")], dim=-1)
    return BetaTable(v["e1"], v["e2"], edge, v["t"], v["v"], tet)


def rounded_principal(height, width):
    """Principal point in units of L, (..., 2)."""
    return torch.stack([width, height], dim=-1) / 2 / torch.maximum(height, width)[..., None]


def check_triplet_features(arrays, path):
    v = tensors(arrays)
    cosine, ratio = geometric_features.triple_features(v["xyz"])
    mask = geometric_features.triple_mask(v["vertex_mask"].bool())
    yield difference("cos_angles", cosine, v["cos_angles"])
    yield difference("ratios", ratio, v["ratios"])
    for kind, values in (("cos_angles", cosine), ("ratios", ratio)):
        yield exact(f"{kind.removeprefix('cos_')}_mask", mask, v[f"{kind.removeprefix('cos_')}_mask"])
        mean, variance = geometric_features.masked_mean_variance(values, mask)
        yield difference(f"{kind}_mean", mean, v[f"{kind}_mean"])
        yield difference(f"{kind}_var", variance, v[f"{kind}_var"])


def check_focal_loss(arrays, path):
    v = tensors(arrays)
    points, depth, visible = v["kpt_xy_normalized"], v["kpt_depth"], v["vertex_mask"].bool()
    principal = rounded_principal(v["img_hw"][:, 0], v["img_hw"][:, 1])
    mask = geometric_features.triple_mask(visible)
    yield exact("angles_mask", mask, v["angles_mask"])
    first = focal.back_project_keypoints(points, depth, v["focal_inv_cases"][0], principal)
    yield difference("xyz_backprojected_case0", first, v["xyz_backprojected_case0"])
    for case, inverse_focal in enumerate(v["focal_inv_cases"]):
        inverse_focal = inverse_focal.clone().requires_grad_()
        loss = focal.focal_loss(inverse_focal, points, depth, visible, principal)
        loss.backward()
        yield difference(f"loss[{case}]", loss, v["loss"][case], atol=1e-4, rtol=1e-4)
        yield difference(f"grad[{case}]", inverse_focal.grad, v["grad"][case], atol=1e-3, rtol=1e-3)
        xyz = focal.back_project_keypoints(points, depth, inverse_focal.detach(), principal)
        for kind, values in zip(("cos_angles", "ratios"), geometric_features.triple_features(xyz), strict=True):
            mean, variance = geometric_features.masked_mean_variance(values, mask)
            yield difference(f"{kind}_mean[{case}]", mean, v[f"{kind}_mean"][case])
            yield difference(f"{kind}_var[{case}]", variance, v[f"{kind}_var"][case])
    steps = v["opt_checkpoint_iters"].tolist()
    values = [torch.full_like(depth[:, 0], focal.START)]  # after every step

    def record(optimiser, *_):
        values.append(optimiser.param_groups[0]["params"][0].detach().clone())

    recording = register_optimizer_step_post_hook(record)
    result = focal.optimise_focal(points, depth, visible, principal, 1000, torch.full_like(depth[:, 0], torch.nan))
    recording.remove()
    yield difference("opt_focal_inv", result, v["opt_focal_inv"].abs(), atol=1e-3, rtol=0)
    for row, step in enumerate(steps):
        if step < len(values):
            before = focal.focal_loss(values[step - 1], points, depth, visible, principal)
            yield difference(f"loss before step {step}", before, v["opt_checkpoint_loss"][row], atol=1e-6, rtol=1e-3)
            yield difference(f"values after step {step}", values[step], v["opt_checkpoints"][row], atol=1e-3, rtol=0)


def check_combinations(arrays, path):
    v = tensors(arrays)
    for name in arrays:
        if name.endswith("_e1"):
            count = int(name[1:-3])
            edge1, edge2 = edge_pairs(count)
            triangle, vertex = triangles_with_vertex(count)
            for key, value in (("e1", edge1), ("e2", edge2), ("t", triangle), ("v", vertex)):
                yield exact(f"n{count}_{key}", value, v[f"n{count}_{key}"])
    for count, pairs, tets in v["counts_n_edgepairs_tets"].tolist():
        yield exact(f"edge pairs of {count}", len(edge_pairs(count)[0]), pairs)
        yield exact(f"triangles of {count}", len(triangles_with_vertex(count)[0]), tets)


def check_edge_tet_features(arrays, path):
    v = tensors(arrays)
    ratio, cosine = geometric_features.edge_pair_features(v["vertices"], v["e1"], v["e2"])
    yield difference("edge_pair_ratios", ratio, v["edge_pair_ratios"], atol=1e-4)
    yield difference("edge_pair_cos_angles", cosine, v["edge_pair_cos_angles"], atol=1e-4)
    cosines = geometric_features.triangle_vertex_features(v["vertices"], v["t"], v["v"])
    yield difference("cos_angle_x", cosines[..., 0], v["cos_angle_x"], atol=1e-4)
    corners = v["vertices"][:, v["t"]]
    e, f = corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0]
    sound = torch.linalg.cross(e, f).norm(dim=-1) > 1e-5 * e.norm(dim=-1) * f.norm(dim=-1)
    for axis, name in ((1, "cos_angle_y"), (2, "cos_angle_z")):
        yield difference(name, cosines[..., axis][sound], v[name][sound], atol=1e-4)


def check_beta_fit(arrays, path):
    v = tensors(arrays)
    for kind, low in (("01", 0.0), ("pm1", -1.0)):
        fitted = torch.stack(fit(v[f"samples_{kind}"], low), dim=-1)
        yield difference(f"fit_{kind}", fitted, v[f"fit_{kind}"], atol=1e-9, rtol=1e-3)
    # Where the published fit raises, ours must still give a usable distribution.
    fitted = torch.stack(fit(v["samples_bad_pm1"], -1.0), dim=-1)
    yield exact("unusable fits", (~(torch.isfinite(fitted) & (fitted > 0))).sum(), 0)


def check_beta_logprob_mode(arrays, path):
    v = tensors(arrays)
    for kind, low in (("01", 0.0), ("pm1", -1.0)):
        single = geometric_features.log_density(v[f"x_{kind}"], v["alpha"], v["beta"], low)
        yield difference(f"logprob_{kind}", single, v[f"logprob_{kind}"], atol=5e-3, rtol=1e-4)
        double = geometric_features.log_density(v[f"x_{kind}"].double(), v["alpha"].double(), v["beta"].double(), low)
        yield difference(f"logprob_{kind}_f64", double, v[f"logprob_{kind}_f64"], **DOUBLE)
    yield difference("mode", beta.mode(v["mode_alpha"], v["mode_beta"]), v["mode"])
    yield difference("variance", beta.variance(v["mode_alpha"], v["mode_beta"]), v["variance"])


def check_geom_loss(arrays, path):
    v = tensors(arrays)
    table = table_of(v)
    vertices = v["vertices"].clone().requires_grad_()
    edge_part, tet_part = geometric_features.geometric_loss_terms(vertices, table)
    loss = geometric_features.geometric_loss(vertices, table)
    # Parallel edges reach the clamp, where float32 rounding moves a term by up to 1.3 % of its parameter.
    for name, values in (("loss", loss), ("term_edge_pairs", edge_part), ("term_tets", tet_part), ("loss_no_tets", edge_part / 5)):
        yield difference(f"{name} (generic)", values[:5], v[name][:5], atol=1e-4, rtol=1e-4)
        yield difference(f"{name} (coincident)", values[5:], v[name][5:], atol=1e-4, rtol=2e-2)
    (gradient,) = torch.autograd.grad(loss[:5].sum(), vertices)
    yield difference("grad_first5", gradient, v["grad_first5"], atol=1e-3, rtol=1e-3)


def check_geom_filter(arrays, path):
    v = tensors(arrays)
    table = table_of(v)
    keep = statistics.valid_edge_pairs(table.edge_beta, v["count_edge"])
    yield exact("keep_edge", keep, v["keep_edge"])
    yield exact("keep_tet", statistics.valid_tets(table.tet_beta, v["count_tet"]), v["keep_tet"])
    ratio = beta.mode(table.edge_beta[keep, 0], table.edge_beta[keep, 1])
    yield difference("filtered_ratio_mode", ratio, v["filtered_ratio_mode"])
    edge1, edge2 = v["e1"][keep], v["e2"][keep]
    yield from _check_topology(edge1, edge2, ratio, int(max(v["e2"].max(), v["t"].max())) + 1, v)
    placed = torch.zeros(int(v["e2"].max()) + 1, dtype=torch.bool)
    placed[v["chosen"]] = True
    pairs = topology.qualifying_edge_pairs(edge1, edge2, placed, int(v["next_kpt"])).nonzero()[:, 0]
    kept_tets = v["keep_tet"].bool()
    triangle, vertex = v["t"][kept_tets], v["v"][kept_tets]
    tets = topology.qualifying_tets(triangle, vertex, placed, int(v["next_kpt"])).nonzero()[:, 0]
    for prefix, limit in (("conn", 100), ("conn5", 5)):
        yield exact(f"{prefix}_e1", edge1[pairs[:limit]], v[f"{prefix}_e1"])
        yield exact(f"{prefix}_e2", edge2[pairs[:limit]], v[f"{prefix}_e2"])
        yield exact(f"{prefix}_t", triangle[tets[:limit]], v[f"{prefix}_t"])
        yield exact(f"{prefix}_v", vertex[tets[:limit]], v[f"{prefix}_v"])


def _check_topology(edge1, edge2, ratio, count, v):
    shortest = topology.extreme_edge(edge1, edge2, ratio)
    yield exact("shortest_edge", shortest, v["shortest_edge"])
    yield exact("longest_edge", topology.extreme_edge(edge1, edge2, ratio, longest=True), v["longest_edge"])
    yield exact("order", topology.placement_order(edge1, edge2, ratio, shortest, count), v["order"])


def check_topology(arrays, path):
    v = tensors(arrays)
    yield difference("ratios", geometric_features.edge_pair_features(v["points"], v["e1"], v["e2"])[0], v["ratios"])
    yield from _check_topology(v["e1"], v["e2"], v["ratios"], len(v["points"]), v)


def check_barycentric(arrays, path):
    v = tensors(arrays)
    double = v["points"].dtype == torch.float64
    close = DOUBLE if double else {"atol": 2e-3, "rtol": 1e-4}
    placed = DOUBLE if double else {"atol": 1e-4, "rtol": 1e-4}
    coordinates = barycentric.barycentric_coordinates(v["points"], v["skeleton"], v["tet_indices"])
    yield difference("bary_coords", coordinates, v["bary_coords"], **close)
    for name, threshold in (("thresh1e1", 0.1), ("thresh1e6", 1e-6)):
        clear = ((coordinates + threshold).abs() >= 1e-4).all(-1) if not double else torch.ones_like(coordinates[..., 0], dtype=torch.bool)
        points_clear = clear.all(1)
        inside = barycentric.inside_tets(coordinates, threshold)
        yield exact(f"inside_{name}", inside[clear], v[f"inside_{name}"][clear])
        yield exact(f"in_hull_{name}", inside.any(1)[points_clear], v[f"in_hull_{name}"][points_clear])
        hull = barycentric.in_hull(v["points"], v["skeleton"], v["tet_indices"], threshold)
        yield exact(f"in_hull_{name} in chunks", hull[points_clear], v[f"in_hull_{name}"][points_clear])
        weights = barycentric.tet_weights(v["points"], v["skeleton"], v["tet_indices"], inside)
        yield difference(f"tet_weights_{name}", weights[points_clear], v[f"tet_weights_{name}"][points_clear], **placed)
        moved = carry(weights, coordinates, v["new_skeleton"][v["tet_indices"]])
        yield difference(f"transformed_{name}", moved[points_clear], v[f"transformed_{name}"][points_clear], **placed)
        row, _ = barycentric.keypoint_weights(v["points"], v["skeleton"], v["tet_indices"], threshold)
        yield difference(f"W X {name}", (row @ v["new_skeleton"])[points_clear], v[f"transformed_{name}"][points_clear], **placed)
        if name == "thresh1e1":
            corners = v["new_skeleton"][v["tet_indices"]]
            batched = carry(weights, coordinates, torch.stack([corners, 1.5 * corners]))
            yield difference("transformed_batched", batched[:, points_clear], v["transformed_batched"][:, points_clear], **placed)


def check_barycentric_degenerate(arrays, path):
    v = tensors(arrays)
    coordinates = barycentric.barycentric_coordinates(v["points"], v["skeleton"], v["tet_indices"])
    sound = v["tet_volume"] > 1e-8
    yield difference("bary_coords", coordinates[:, sound], v["bary_coords"][:, sound], atol=1e-8, rtol=1e-4)
    yield exact("not finite", (~torch.isfinite(coordinates)).sum(), 0)
    inside = barycentric.inside_tets(coordinates)
    clear = ((coordinates + 0.1).abs() >= 1e-4).all(-1)
    yield exact("inside_thresh1e1", inside[clear], v["inside_thresh1e1"][clear])
    yield exact("in_hull_thresh1e1", inside.any(1)[clear.all(1)], v["in_hull_thresh1e1"][clear.all(1)])
    weights = barycentric.tet_weights(v["points"], v["skeleton"], v["tet_indices"], inside)
    yield difference("tet_weights_thresh1e1", weights[clear.all(1)], v["tet_weights_thresh1e1"][clear.all(1)], atol=1e-4)
    moved = carry(weights, coordinates, v["new_skeleton"][v["tet_indices"]])
    yield difference("transformed_thresh1e1", moved[clear.all(1)], v["transformed_thresh1e1"][clear.all(1)], atol=1e-4)


def check_presence_score(arrays, path):
    from published import likelihood

    v = tensors(arrays)
    score = likelihood.presence_p_value(v["x"], v["mean"], v["var"].sqrt())
    yield difference("score", score, v["score"], atol=2e-6, rtol=1e-4)
    simple = likelihood.presence_p_value(v["simple_x"], v["simple_mean"], v["simple_sd"])
    yield difference("simple_score", simple, v["simple_score"], atol=2e-6)
    distance, sigma = v["dist"][:, None], v["sigma"]
    yield difference("log_max_normalised", likelihood.log_spatial(distance, sigma), v["log_max_normalised"])
    yield difference("max_normalised", likelihood.log_spatial(distance, sigma).exp(), v["max_normalised"])
    yield difference("log_normal_pdf", likelihood.log_normal_density(distance, sigma), v["log_normal_pdf"])


def check_keypoint_features(arrays, path):
    v = tensors(arrays)
    mean, mu, sd = point_features.feature_statistics(v["features"], v["counts"])
    yield difference("fts_hat", mean, v["fts_hat"])
    yield difference("attn_mean", mu, v["attn_mean"])
    yield difference("attn_sd", sd, v["attn_sd"])


def check_cluster_stats(arrays, path):
    v = tensors(arrays)
    used = v["sparse_mask"].bool()
    clusters = dense_cloud.cluster_statistics(
        v["sparse_xyz"][used], v["points"], v["point_features"], v["labels"], v["kmeans_centers"], int(v["n_neighbours"])
    )
    yield exact("kept_index", clusters.kept, v["kept_index"])
    yield difference("anchor_xyz", v["sparse_xyz"][used], v["anchor_xyz"])
    yield exact("anchor_tet_combinations", clusters.tets, v["anchor_tet_combinations"])
    yield difference("centers", clusters.centres, v["centers"])
    yield difference("weights", clusters.support, v["weights"])
    yield difference("fts_hat", clusters.features, v["fts_hat"])
    yield difference("attn_mean", clusters.mean, v["attn_mean"])
    yield difference("attn_var", clusters.variance, v["attn_var"])
    coordinates = barycentric.barycentric_coordinates(clusters.centres, v["anchor_xyz"], clusters.tets)
    yield difference("bary_coords", coordinates, v["bary_coords"], atol=2e-3)
    inside = barycentric.inside_tets(coordinates)
    clear = ((coordinates + 0.1).abs() >= 1e-4).all(-1).all(1)
    weights = barycentric.tet_weights(clusters.centres, v["anchor_xyz"], clusters.tets, inside)
    yield difference("tet_weights", weights[clear], v["tet_weights"][clear], atol=1e-4)
    keep = clusters.support > float(v["weight_cut"])
    yield exact("weight_keep", keep, v["weight_keep"])
    nearest = torch.cdist(v["anchor_xyz"], clusters.centres[keep]).argmin(1)
    yield exact("closest_to_anchor", nearest, v["closest_to_anchor"])


def check_projection(arrays, path):
    v = tensors(arrays)
    height, width = v["depth_raw"].shape
    depth = DepthMap(v["depth_raw"], "disparity")
    yield difference("depth_norm", depth.z(), v["depth_norm"])
    yield difference("depth_norm_flip", depth.mirror().z(), v["depth_norm_flip"])
    focal_length = float(v["focal"])
    for name, size in (("K_landscape", (height, width)), ("K_portrait", (width, height))):
        camera = PinholeCamera.centred(focal_length, *size)
        matrix = camera.matrix_pixels().double() / torch.tensor([[max(size)], [max(size)], [1.0]]).double()
        yield difference(name, matrix, v[name])
    camera = PinholeCamera.centred(focal_length, height, width)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = camera.to_normalised(torch.stack([columns, rows], dim=-1).float())
    yield difference("xyz_depth", camera.back_project(pixels, v["depth_norm"]), v["xyz_depth"], atol=1e-6, rtol=1e-5)
    yield difference("xyz_depth_flip", camera.back_project(pixels, v["depth_norm_flip"]), v["xyz_depth_flip"], atol=1e-6, rtol=1e-5)
    principal = rounded_principal(v["img_hw"][:, 0], v["img_hw"][:, 1])
    points = focal.back_project_keypoints(v["kpt_xy_normalized"], v["kpt_depth"], v["focal_inv"], principal)
    yield difference("kpt_xyz", points, v["kpt_xyz"])
    yield difference("kpt_xyz_from_Kinv", points, v["kpt_xyz_from_Kinv"])
    focal_lengths = 1 / v["focal_inv"].abs()
    yield difference("reprojected", project(points, focal_lengths[:, None, None], principal[:, None]), v["reprojected"])
    yield from _check_world_points(v, focal_lengths)


def _check_world_points(v, focal_lengths):
    for n, (height, width) in enumerate(v["img_hw"].long().tolist()):
        camera = PinholeCamera.centred(focal_lengths[n], height, width)
        pixels = camera.to_pixels(camera.project(v["world_points"]))
        yield difference(f"pixels_unclamped[{n}]", pixels, v["pixels_unclamped"][n], atol=1e-3)
        limits = torch.tensor([width - 1.0, height - 1.0])
        yield difference(f"pixels_clamped[{n}]", pixels.clamp(min=0).minimum(limits), v["pixels_clamped"][n], atol=1e-3)


def check_keypoint_correction(arrays, path):
    v = tensors(arrays)
    for n in range(len(v["mask"])):
        eroded = keypoint_correction.erode(v["mask"][n].bool())
        yield exact(f"eroded[{n}]", eroded, v["eroded"][n])
        corrected = keypoint_correction.nearest_mask_pixels(eroded, v["query_xy"][n])
        own = (corrected - v["query_xy"][n]).double().norm(dim=-1)
        yield difference(f"distance[{n}]", own, (v["corrected_xy"][n] - v["query_xy"][n]).double().norm(dim=-1), **DOUBLE)
        yield exact(f"corrected_xy[{n}]", corrected, v["corrected_xy"][n])


def check_embedding_coords(arrays, path):
    v = tensors(arrays)
    for n, (height, width) in enumerate(v["img_hw"].tolist()):
        pixels = v["img_xy"][n]
        yield exact(f"embd_xy_dense[{n}]", cells.dense_cells(pixels, height, width), v["embd_xy_dense"][n])
        yield exact(f"embd_xy_keypoint[{n}]", cells.keypoint_cells(pixels, height, width), v["embd_xy_keypoint"][n])
        back = cells.cell_pixels(v["embd_xy_in"], height, width)
        yield exact(f"img_xy_from_embd[{n}]", back, v["img_xy_from_embd"][n])


def check_noise_augmentation(arrays, path):
    v = tensors(arrays)
    visible = v["vertex_mask"].bool()
    sigma = statistics.shortest_edges(v["xyz"], visible)
    yield difference("min_edge", sigma, v["min_edge"])
    copies = len(v["noisy_xyz"]) // len(v["xyz"])
    noisy, mask = statistics.noise_augmentation(v["xyz"], visible, copies, torch.Generator().manual_seed(int(v["torch_seed"])))
    yield exact("noisy_mask", mask, v["noisy_mask"])
    hidden = ~mask
    yield difference("coordinates of hidden keypoints", noisy[hidden], v["noisy_xyz"][hidden])
    count = int(v["stat_n"])
    noisy, _ = statistics.noise_augmentation(v["xyz"], visible, count, torch.Generator().manual_seed(1))
    residual = (noisy - v["xyz"].repeat_interleave(count, 0)).reshape(len(v["xyz"]), count, *v["xyz"].shape[1:])
    expected = (0.2 * v["min_edge"][:, None, None] * visible[..., None]).expand_as(v["xyz"])
    # Limits of section "noise_augmentation" for the spread; five standard errors for the mean.
    yield difference("standard deviation", residual.std(1), expected, atol=1e-6, rtol=0.06)
    yield difference("mean", residual.mean(1) / (expected + 1e-9), torch.zeros_like(expected), atol=5 / count**0.5, rtol=0)


def check_image_point_cloud(arrays, path):
    v = tensors(arrays)
    rows, columns = v["seg_mask"].nonzero().unbind(1)
    pixels = torch.stack([columns, rows], dim=-1)
    xyz = v["img_xyz"][rows, columns]
    anchors = v["img_xyz"][v["kpt_xy"][:, 1], v["kpt_xy"][:, 0]]
    moved = dense_cloud.to_canonical(xyz, anchors, v["canonical"], v["kpt_labels"])
    coordinates = barycentric.barycentric_coordinates(xyz, anchors, tetrahedra(len(anchors)))
    clear = ((coordinates + 0.1).abs() >= 1e-3).all(-1).all(1)
    yield exact("in_image_hull", moved.in_image_hull[clear], v["in_image_hull"][clear])
    yield difference("transformed_all", moved.points[clear], v["transformed_all"][clear], atol=1e-3)
    # The file keeps pixels outside the image hull wherever the origin is inside the canonical hull; we drop them.
    recorded = {tuple(p): k for k, p in enumerate(v["kept_img_xy"].tolist())}
    tets = tetrahedra(len(v["canonical"]))
    recorded_clear = ((barycentric.barycentric_coordinates(moved.points, v["canonical"], tets) + 0.1).abs() >= 1e-3).all(-1).all(1)
    compare = clear & recorded_clear & v["in_image_hull"].bool()
    expected = torch.tensor([tuple(p) in recorded for p in pixels.tolist()])
    yield exact("kept within the image hull", moved.kept[compare], expected[compare])
    index = torch.tensor([recorded.get(tuple(p), 0) for p in pixels.tolist()])
    both = compare & moved.kept & expected
    yield difference("kept_xyz_transformed", moved.points[both], v["kept_xyz_transformed"][index[both]], atol=1e-3)
    yield difference("kept_xyz_orig", xyz[both], v["kept_xyz_orig"][index[both]], atol=1e-3)


def check_spair_flip_index(arrays, path):
    from semalign3d_core.datasets import tables

    table = np.full((len(tables.SPAIR_CATEGORIES), tables.SPAIR_LABELS), -1)
    for row, category in enumerate(sorted(tables.SPAIR_CATEGORIES)):
        flip, used = np.asarray(tables.flip_permutation(category)), list(tables.used_labels(category))
        table[row, used] = flip[used]
    yield exact("flip", table, arrays["flip"])


def check_sparse_reconstruction(arrays, path):
    v = tensors(arrays)
    count = len(v["true_shape"])
    yield from _check_all_fits(v, count)
    table = table_of(v)
    ratio = beta.mode(table.edge_beta[:, 0], table.edge_beta[:, 1])
    start = topology.extreme_edge(table.edge1, table.edge2, ratio)
    yield exact("start_edge", start, v["start_edge"])
    yield exact("order", topology.placement_order(table.edge1, table.edge2, ratio, start, count), v["order"])
    points, loss = sparse.reconstruct(table, count, DESCENT, torch.Generator().manual_seed(0))
    yield exact("unused", torch.isnan(points).any(1).nonzero()[:, 0], v["unused"])
    # Quality yardsticks: not above the reference's loss; within 1.05 of its error, proper rotations and with reflections.
    yield "loss above the reference", loss - float(v["geom_loss_grid_refined_true"][1]), 1e-3
    placed = torch.isfinite(points).all(1)
    for kind, reflect in (("proper", False), ("reflected", True)):
        own = relative_rms(points[placed].double(), v["true_shape"][placed], reflect)
        yield f"{kind} error / reference", own / float(v["rel_rms_refined_proper_reflect"][int(reflect)]), 1.05


def _check_all_fits(v, count):
    edge1, edge2 = edge_pairs(count)
    triangle, vertex = triangles_with_vertex(count)
    visible = v["noisy_mask"].bool()
    edge_beta, edge_counts = statistics.fit_edge_pairs(v["noisy_xyz"], visible, edge1, edge2)
    tet_beta, tet_counts = statistics.fit_tets(v["noisy_xyz"], visible, triangle, vertex)
    groups = (("all_edge_ratio", edge_beta, 0), ("all_edge_cos", edge_beta, 2))
    groups += tuple((f"all_cos_{axis}", tet_beta, 2 * n) for n, axis in enumerate("xyz"))
    for name, fitted, column in groups:
        expected = torch.stack([v[f"{name}_alpha"], v[f"{name}_beta"]], dim=-1)
        compare = ((expected > 1) & (expected < 500)).all(1)
        yield difference(name, fitted[compare, column : column + 2], expected[compare], atol=1e-6, rtol=1e-2)
    keep, keep_tets = statistics.valid_edge_pairs(edge_beta, edge_counts), statistics.valid_tets(tet_beta, tet_counts)
    borderline = (edge_beta - 1).abs().amin(1) < 1e-3
    borderline_tets = (tet_beta - 1).abs().amin(1) < 1e-3
    yield exact("kept edge pairs", keep[~borderline], _recorded(edge1, edge2, v["e1"], v["e2"])[~borderline])
    recorded = _recorded(triangle, vertex[:, None], v["t"], v["v"][:, None])
    yield exact("kept triangles", keep_tets[~borderline_tets], recorded[~borderline_tets])


def _recorded(first, second, kept_first, kept_second):
    kept = {tuple(row) for row in torch.cat([kept_first, kept_second], dim=1).tolist()}
    return torch.tensor([tuple(row) in kept for row in torch.cat([first, second], dim=1).tolist()])


def relative_rms(points, target, reflect):
    """RMS residual after similarity alignment, relative to the RMS radius of ``target``."""
    scale, rotation, translation = similarity_alignment(points, target, reflect=reflect)
    residual = scale * points @ rotation.T + translation - target
    radius = (target - target.mean(0)).pow(2).sum(-1).mean().sqrt()
    return float(residual.pow(2).sum(-1).mean().sqrt() / radius)


CHECKS = {
    name.removeprefix("check_"): function
    for name, function in list(globals().items())
    if name.startswith("check_") and name != "check_sparse_reconstruction"
} | {
    "barycentric_f64": check_barycentric,
    "sparse_reconstruction_full": check_sparse_reconstruction,
    "sparse_reconstruction_missing": check_sparse_reconstruction,
}
