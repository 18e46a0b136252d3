"""The method of this package as a matcher: one alignment per image, Eq. 14 per pair."""

import dataclasses
from collections import OrderedDict

from semalign3d_core.aligned_image import AlignedImage, aligned_image, category_surface
from semalign3d_core.config import load_preset
from semalign3d_core.transfer import Transfer, transfer

IMAGES_IN_MEMORY = 40  # of 4.8 MB each with 330 points and 60 x 60 cells


class SemAlign3DMatcher:
    """Transfers points between images of one category.

    model: :class:`~semalign3d_core.category.model.CategoryModel`; preset: of the alignment (``fast``, ``reference``, a YAML file);
    transfer: a :class:`Transfer`, or the name of its preset. By default queries are taken for annotated keypoints, as
    those of benchmarks are (preset ``keypoints``); for points anywhere on the object say ``fast``.
    """

    name = "semalign3d"

    def __init__(self, model, preset="fast", transfer=None):
        from semalign3d_core.alignment.aligner import Aligner

        self.aligner = Aligner(model, preset)
        self.surface = category_surface(model)
        transfer = transfer or ("reference" if preset == "reference" else "keypoints")
        self._recent = OrderedDict()
        self.config = transfer if isinstance(transfer, Transfer) else load_preset(Transfer, "transfer", transfer)

    def prepare(self, evidence):
        """The one alignment of an image (:class:`ImageEvidence`): an :class:`AlignedImage`."""
        return aligned_image(self.surface, evidence, self.aligner.align(evidence))

    def match(self, source, target, points):
        """Carries ``points`` (Q, 2), pixels of ``source``, to ``target``: :class:`~semalign3d_core.matchers.Matches`.

        ``source`` and ``target`` are evidence or, so that an image is aligned once, what ``prepare`` made of it.
        """
        source, target = self._prepared(source), self._prepared(target)
        return transfer(self.surface, source, target, points, self.config)

    def _prepared(self, image):
        """``image`` as an :class:`AlignedImage` with its similarity maps, which the last images keep in memory."""
        key = id(image)
        if key not in self._recent:
            aligned = image if isinstance(image, AlignedImage) else self.prepare(image)
            aligned = dataclasses.replace(aligned, similarity=aligned.maps(self.surface.features))
            self._recent[key] = image, aligned  # the image itself is kept, so that its id is not given to another
            if len(self._recent) > IMAGES_IN_MEMORY:
                self._recent.popitem(last=False)
        self._recent.move_to_end(key)
        return self._recent[key][1]
