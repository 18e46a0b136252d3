"""The method of this package as a matcher: one alignment per image, Eq. 14 per pair."""

from semalign3d_core.matchers.matcher import Matcher
from semalign3d_core.runtime.config import load_preset, to_dict
from semalign3d_core.transfer.aligned_image import AlignedImage, aligned_image, category_surface
from semalign3d_core.transfer.transfer import Lifting, Transfer, likelihood_maps, place_points


def transfer_preset(preset):
    """The preset of the transfer that goes with one of the alignment."""
    return "reference" if preset == "reference" else "keypoints"


class SemAlign3DMatcher(Matcher):
    """Transfers points between images of one category.

    model: :class:`~semalign3d_core.category.model.CategoryModel`; preset: of the alignment (``fast``, ``reference``, a YAML file);
    transfer: a :class:`Transfer`, or the name of its preset. By default queries are taken for annotated keypoints, as
    those of benchmarks are (preset ``keypoints``); for points anywhere on the object say ``fast``.
    """

    name = "semalign3d"
    prepares = True
    rates_cells = True

    def __init__(self, model, preset="fast", transfer=None):
        from semalign3d_core.alignment.aligner import Aligner

        self.model, self.aligner = model, Aligner(model, preset)
        self.surface = category_surface(model)
        transfer = transfer or transfer_preset(preset)
        self.config = transfer if isinstance(transfer, Transfer) else load_preset(Transfer, "transfer", transfer)

    @property
    def settings(self):
        """Everything that was resolved from presets: nested dictionaries."""
        return {"alignment": to_dict(self.aligner.config), "transfer": to_dict(self.config)}

    def prepare(self, evidence):
        """The one alignment of an image (:class:`ImageEvidence`): an :class:`AlignedImage`."""
        return aligned_image(self.surface, evidence, self.aligner.align(evidence))

    def match(self, source, target, points):
        """Carries ``points`` (Q, 2), pixels of ``source``, to ``target``: :class:`~semalign3d_core.matchers.Matches`.

        ``source`` and ``target`` are evidence or, so that an image is aligned once, what ``prepare`` made of it.
        """
        return place_points(self.surface, self.lift(source, points).together, self._prepared(target), self.config)

    def lift(self, source, points):
        """What ``points`` (Q, 2), pixels of ``source``, are on the category, once for all targets: a :class:`Lifting`."""
        return Lifting(self.surface, self._prepared(source), points, self.config)

    def place(self, lifted, rows, target):
        """Where the points ``rows`` (N,) of what :meth:`lift` returned are in ``target``: :class:`Matches`."""
        return place_points(self.surface, lifted.rows(rows), self._prepared(target), self.config)

    def score_maps(self, lifted, target):
        """How likely each lifted point is at each cell of ``target``, (Q, cells * cells) in [0, 1]: for KAP."""
        return likelihood_maps(self.surface, lifted.together, self._prepared(target), self.config)

    def _prepared(self, image):
        return image if isinstance(image, AlignedImage) else self.prepare(image)
