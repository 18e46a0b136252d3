"""PF-WILLOW (Ham et al., Proposal Flow, 2016): 10 keypoints per image, one list of test pairs."""

from pathlib import Path

import numpy as np

from semalign3d_core.datasets import tabular
from semalign3d_core.datasets.records import ImageRecord, KeypointSpec, category_of
from semalign3d_core.runtime.errors import MissingFileError

LABELS = 10
_REMEDY = (
    "get https://www.di.ens.fr/willow/research/proposalflow/dataset/PF-dataset.zip and, into its folder, "
    "https://www.di.ens.fr/willow/research/cnngeometric/other_resources/test_pairs_pf.csv"
)


class PfWillowDataset(tabular.OneListDataset):
    """PF-WILLOW: ``<category>/<name>.png`` and ``test_pairs_pf.csv`` (source, target, 10 source x, 10 source y, 10 target x and y).

    Categories such as ``car(G)`` are the image folders. Keypoints are not named, and no mirror table is published. The published
    reference length is the larger extent of an image's 10 keypoints, which stands in ``box``.
    """

    published_name = "PF-WILLOW"
    threshold_kind = "bbox"
    columns, list_remedy = 2 + 4 * LABELS, _REMEDY

    def __init__(self, root: str | Path) -> None:
        super().__init__(root)
        files = [self.root / name for name in ("test_pairs_pf.csv", "test_pairs.csv")]
        found = next((f for f in files if f.is_file()), None)
        if found is None:
            raise MissingFileError(f"{files[0]} does not exist: the download of PF-WILLOW is not complete; {_REMEDY}")
        self.list_path = found

    def categories(self) -> list[str]:
        """Folders that the pair list names, sorted."""
        return sorted({category_of(name) for name in self.rows("test")})

    def keypoint_spec(self, category: str) -> KeypointSpec:
        """10 labels without names, each its own mirror image."""
        self.check_category(category)
        return KeypointSpec.unnamed(LABELS)

    def images(self, category: str, split: str | None = None) -> list[ImageRecord]:
        """All images of a category that the pair list names, sorted by name."""
        return self.listed_images(category, split or "test")

    def sides(self, split: str, name: str, row: list[str]) -> list[ImageRecord]:
        """Source and target of a row of the list."""
        where = f"{self.list_path}, pair {name}"
        values = [tabular.numbers(entry, ";", where) for entry in row[2 : 2 + 4 * LABELS]]
        x1, y1, x2, y2 = ([v for entry in values[i : i + LABELS] for v in entry] for i in range(0, 4 * LABELS, LABELS))
        sides = ((row[0], x1, y1), (row[1], x2, y2))
        return [self._record(category_of(name), listed, tabular.points(x, y, LABELS, where)) for listed, x, y in sides]

    def _record(self, category: str, listed: str, keypoints: np.ndarray) -> ImageRecord:
        path = tabular.find_image(self.root, listed, _REMEDY)
        box = np.concatenate([np.nanmin(keypoints, axis=0), np.nanmax(keypoints, axis=0)])
        height, width = tabular.image_size(path)
        return ImageRecord(category, path.stem, path, height, width, keypoints, box, remedy=_REMEDY)
