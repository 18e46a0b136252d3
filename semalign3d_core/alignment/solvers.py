"""Solvers of Eq. 13 behind one interface.

A solver has ``solve(observation) -> Candidates`` for an image of which nothing is known,
``refine(observation, poses) -> Candidates`` from given :class:`~semalign3d_core.alignment.poses.Poses`, ``capturable``, whether
its work can be captured in a CUDA graph, and ``phases`` of a warm and of a cold solution, ((first step, number of starts), ...) each.
What a solution is worth is not the solver's business: :func:`evaluate` is the same for all.
"""

from semalign3d_core.alignment import energy
from semalign3d_core.alignment.adamw import AdamWSolver
from semalign3d_core.alignment.gauss_newton import GaussNewtonSolver
from semalign3d_core.alignment.poses import project_points

# name -> factory(category, pose_rotations, config) -> solver
SOLVERS = {"gauss_newton": GaussNewtonSolver, "adamw": AdamWSolver}


def evaluate(category, betas, observation, keypoints, focal, config):
    """The terms {name: (B,)} of Eq. 13 of solutions X (B, K, 3) with focal lengths (B, 2), and their weighted sum (B,).

    betas: the table that Eq. 10 is evaluated on; config: an :class:`AlignConfig`. Image lengths are in units, so that
    energies of large and small objects compare.
    """
    projections = project_points(category.lift @ keypoints, focal, observation.principal)
    sigma = (config.energy.sigma * observation.unit).expand(len(keypoints))
    cloud, points = projections[:, : category.dense], projections[:, category.dense :]
    terms = {
        "dense": energy.dense_reconstruction(observation.pixel_log, observation.pixels, cloud, sigma),
        "sparse": energy.sparse_reconstruction(observation.keypoint_log, observation.keypoint_cells, points, sigma),
        "geometry": energy.geometric_consistency(keypoints, betas),
        "background": _background(observation, cloud, config.observation.cap),
        "depth": energy.depth_regularisation(keypoints),
    }
    return terms, energy.total(terms, {name: getattr(config.energy, name) for name in terms})


def _background(observation, cloud, cap):
    if observation.field is None:
        return cloud.new_zeros(len(cloud))
    return energy.background(cloud, observation.field, cap * observation.unit) / observation.unit
