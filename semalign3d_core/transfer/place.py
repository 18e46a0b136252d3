"""Transfer of points between images through the category (paper section 3.3, Eq. 14): where lifted points are in a target image."""

import numpy as np
import torch
from torch import Tensor

from semalign3d_core.geometry.camera import back_project
from semalign3d_core.transfer.aligned_image import AlignedImage, CategorySurface
from semalign3d_core.transfer.choose import best_solutions
from semalign3d_core.transfer.config import Transfer
from semalign3d_core.transfer.lift import CategoryPoints, Lifting, tempered
from semalign3d_core.transfer.matches import Matches
from semalign3d_core.transfer.second_step import Score

LOCAL_RIDGE = 0.05  # of the local map between two images, towards the ratio of their object sizes


def transfer(
    surface: CategorySurface, source: AlignedImage, target: AlignedImage, points: Tensor | np.ndarray, config: Transfer
) -> Matches:
    """Eq. 14 between two images of one category: pixels (Q, 2) of the source to :class:`Matches` in the target."""
    return place_points(surface, Lifting(surface, source, points, config).together, target, config)


def cycle_distance(
    surface: CategorySurface, source: AlignedImage, target: AlignedImage, points: Tensor | np.ndarray, config: Transfer
) -> Tensor:
    """Pixels (Q,) by which points return beside themselves after source -> target -> source: small where trustworthy."""
    there = transfer(surface, source, target, points, config)
    back = transfer(surface, target, source, there.points, config)
    return (back.points - torch.as_tensor(points, dtype=torch.float32, device=back.points.device)).norm(dim=-1)


def place_points(surface: CategorySurface, lifted: CategoryPoints, image: AlignedImage, config: Transfer) -> Matches:
    """Step 2 of Eq. 14: where the lifted points are in ``image``.

    Step 2 has a systematic error: it draws a corner into the object, and j* is only near the query. In the source the same step makes the
    same error, and there it is known; this residual is added, mapped by the local map between the images. The random error of step 2 is
    independent of that of the alignment, so that a mean of its result and of the plain projection is better than either. The 3D position
    is the found pixel at the depth of y_j*. The confidence is the product of both alignments' confidences and of the tempered likelihoods
    of the point in the images that show it. Where alignments have several solutions, :func:`best_solutions` chooses among them.
    """
    lifted, image = best_solutions(lifted, image, config)
    index, alignment, camera = lifted.index, image.alignment, image.alignment.camera
    score = Score(surface, image, index, config, lifted.features)
    found = score.best()
    log_likelihood = score(found[:, None])[0][:, 0]
    seen = image.usable[index] & ~(image.hidden | image.occluded)[index]
    share = torch.where(seen, config.projection, 1.0 if config.projection else 0.0)[:, None].to(found)
    carried = _mapped_residuals(surface, lifted, image)
    found = torch.lerp(found + carried[:, 1], image.places[index] + carried[:, 0], share)
    points = surface.surface[index] @ image.keypoints
    pixels = camera.to_pixels(found)
    visible = seen & ((pixels > -0.5) & (pixels < pixels.new_tensor([camera.width, camera.height]) - 0.5)).all(-1)
    return Matches(
        points=pixels,
        confidence=lifted.confidence * alignment.confidence * torch.where(visible, tempered(log_likelihood), 1.0),
        points_3d=back_project(found, points[:, 2], camera.focal.to(points), camera.principal.to(points)),
        visible=visible,
    )


def likelihood_maps(surface: CategorySurface, lifted: CategoryPoints, image: AlignedImage, config: Transfer) -> Tensor:
    """p_sem(q, j*) p_spat(q, y_j*) of step 2 at all cells q of ``image``: (Q, cells * cells) in [0, 1], row-major."""
    lifted, image = best_solutions(lifted, image, config)
    return Score(surface, image, lifted.index, config).of_cells()[0].exp()


def _mapped_residuals(surface: CategorySurface, lifted: CategoryPoints, image: AlignedImage) -> Tensor:
    """The source's residuals (Q, 2, 2) in the target, by the linear map that the neighbours of j* suggest."""
    there = image.places[surface.neighbours[lifted.index]] - image.places[lifted.index][:, None]
    here, ratio = lifted.around, image.size / lifted.size
    gram = here.transpose(1, 2) @ here
    ridge = LOCAL_RIDGE * gram.diagonal(dim1=1, dim2=2).sum(1)[:, None, None].clamp(min=1e-9) * torch.eye(2).to(gram)
    local = torch.linalg.solve(gram + ridge, here.transpose(1, 2) @ there + ratio * ridge)
    return lifted.residual @ local
