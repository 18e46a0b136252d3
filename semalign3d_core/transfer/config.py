"""Configuration of the transfer. Presets: ``config/presets/transfer_*.yaml``."""

from dataclasses import dataclass, field

from semalign3d_core.runtime.errors import InputError
from semalign3d_core.transfer.aligned_image import AlignedImage

SECOND_STEPS = ("mean", "argmax")


@dataclass(frozen=True)
class Transfer:
    """Settings of the transfer; the defaults are the preset ``fast``.

    sigma, target_sigma: spread of p_spat in the source (step 1 of Eq. 14) and in the target (step 2)
    size_unit:           both are in units of L at this object size and grow with the object; None: always in units of L
    uncertain_widening:  the spread is multiplied by ``uncertain_widening ** (1 - confidence of the image's alignment)``
    semantic_weight:     factor of log p_sem in step 1;  similarity_weight: of the plain similarity there
    keypoint_preference: nats by which annotated keypoints are preferred in step 1; above 0 only if the queries are keypoints
    distinct:            queries of one call are different keypoints, so that each keypoint is given to one query at most
    hidden_penalty:      nats against points behind the object in step 1 (a query is on what one sees)
    own_feature:         weight of the similarity of the query's own feature in step 2
    second_step:         ``mean`` (softmax-weighted mean) or ``argmax`` (as published)
    projection:          share of the plain projection of j* in the result, the rest is what step 2 finds; where j* is not
                         seen in the target there is nothing to find, and the share is 1
    residual:            share of the source's residual of step 2 that is carried to the target;  projection_residual: of its
                         residual of the projection. 1 and 1 return every query to itself when source and target are the same
                         image, 0 and 0 are Eq. 14 as published; below 1, because residuals also hold the error of the source's alignment
    solution_similarity: weight of how alike queries and their places look in the choice among the solutions of both images (choose.py);
                         0: always the best of each image
    category_sigmas:     {category: sigma}: published spreads that replace both
    """

    sigma: float = 0.02
    target_sigma: float = 0.02
    size_unit: float | None = 0.6
    uncertain_widening: float = 2.0
    semantic_weight: float = 0.5
    similarity_weight: float = 10.0
    keypoint_preference: float = 0.0
    distinct: bool = False
    hidden_penalty: float = 1.0
    own_feature: float = 10.0
    second_step: str = "mean"
    projection: float = 0.5
    residual: float = 0.75
    projection_residual: float = 0.75
    solution_similarity: float = 0.1
    category_sigmas: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.second_step not in SECOND_STEPS:
            raise InputError(f"transfer: second_step is {self.second_step!r}, expected one of {', '.join(SECOND_STEPS)}")
        if min(self.sigma, self.target_sigma, self.uncertain_widening, self.size_unit or 1) <= 0:
            raise InputError("transfer: sigma, target_sigma, size_unit and uncertain_widening must be positive")

    @property
    def told_keypoints(self) -> bool:
        """Whether this transfer is told that queries are annotated keypoints, different ones in one call."""
        return self.distinct or self.keypoint_preference > 0

    def spreads(self, image: AlignedImage) -> tuple[float, float]:
        """(sigma, target_sigma) in units of L for an image."""
        published = self.category_sigmas.get(image.alignment.category)
        sigmas = (self.sigma, self.target_sigma) if published is None else (published, published)
        factor = 1.0 if self.size_unit is None else image.size / self.size_unit
        factor *= self.uncertain_widening ** (1 - min(max(image.alignment.confidence, 0.0), 1.0))
        return sigmas[0] * factor, sigmas[1] * factor
