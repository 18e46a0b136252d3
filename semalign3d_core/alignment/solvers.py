"""Solvers of Eq. 13 behind one interface.

A solver has ``solve(observation) -> Candidates`` for an image of which nothing is known,
``refine(observation, poses) -> Candidates`` from given :class:`Poses`, ``capturable``, whether
its work can be captured in a CUDA graph, and ``phases`` of a warm and of a cold solution, ((first step, number of starts), ...) each.
What a solution is worth is not the solver's business: :func:`evaluate` is the same for all.
"""

import torch

from semalign3d_core.alignment import energy
from semalign3d_core.alignment.gauss_newton.solver import GaussNewtonSolver
from semalign3d_core.alignment.published import AdamWSolver

# name -> factory(category, pose_rotations, config) -> solver
SOLVERS = {"gauss_newton": GaussNewtonSolver, "adamw": AdamWSolver}


def evaluate(category, betas, observation, placed, config):
    """The terms {name: (B,)} of Eq. 13 of B solutions and their weighted sum (B,).

    betas: the table that Eq. 10 is evaluated on; placed: the solutions, :class:`Placed`; config: an
    :class:`AlignConfig`. Image lengths are in units, so that energies of large and small objects compare.
    """
    keypoints = placed.points[:, category.dense :]
    sigma = (config.energy.sigma * observation.unit).expand(len(keypoints))
    cloud, points = placed.projected.split((category.dense, keypoints.shape[1]), 1)
    terms = {
        "dense": energy.dense_reconstruction(observation.pixel_log, observation.pixels, cloud, sigma),
        "sparse": energy.sparse_reconstruction(observation.keypoint_log, observation.keypoint_cells, points, sigma),
        "geometry": energy.geometric_consistency(keypoints, betas),
        "background": _background(observation, placed, config.observation.cap),
        "depth": energy.depth_regularisation(keypoints),
    }
    return terms, energy.total(terms, {name: getattr(config.energy, name) for name in terms})


def _background(observation, placed, cap):
    if placed.distance is None:
        return torch.zeros_like(placed.projected[:, 0, 0])
    return energy.mean_distance(placed.distance, cap * observation.unit) / observation.unit
