"""PF-WILLOW (Ham et al., Proposal Flow, 2016): 10 keypoints per image, one list of test pairs."""

from functools import cached_property
from pathlib import Path

import numpy as np

from semalign3d_core.datasets import tabular
from semalign3d_core.datasets.records import ImageRecord, KeypointSpec, PairRecord
from semalign3d_core.datasets.selection import category_of, check_categories, selected_pairs
from semalign3d_core.errors import InputError, MissingFileError

LABELS = 10
_REMEDY = (
    "get https://www.di.ens.fr/willow/research/proposalflow/dataset/PF-dataset.zip and, into its folder, "
    "https://www.di.ens.fr/willow/research/cnngeometric/other_resources/test_pairs_pf.csv"
)


class PfWillowDataset:
    """PF-WILLOW: ``<category>/<name>.png`` and ``test_pairs_pf.csv`` (source, target, 10 source x, 10 source y, 10 target x and y).

    Categories such as ``car(G)`` are the image folders. Keypoints are not named, and no mirror table is published. The published
    reference length is the larger extent of an image's 10 keypoints, which stands in ``box``.
    """

    threshold_kind = "bbox"
    annotation = "keypoints"

    def __init__(self, root):
        self.root = Path(root)
        files = [self.root / name for name in ("test_pairs_pf.csv", "test_pairs.csv")]
        self.list_path = next((f for f in files if f.is_file()), None)
        if self.list_path is None:
            raise MissingFileError(f"{files[0]} does not exist: the download of PF-WILLOW is not complete; {_REMEDY}")

    def categories(self):
        """Folders that the pair list names, sorted."""
        return sorted({category_of(name) for name in self._rows})

    def keypoint_spec(self, category):
        """10 labels without names, each its own mirror image."""
        check_categories([category], self.categories(), self.root)
        return KeypointSpec(tuple(f"kp{label:02d}" for label in range(LABELS)), tuple(range(LABELS)))

    def geometry_groups(self, category):
        """None are published."""
        return ()

    def images(self, category, split=None):
        """All images of a category that the pair list names, sorted by name."""
        check_categories([category], self.categories(), self.root)
        if split is not None:
            self.pair_names(split)
        records = {}
        for name in self._rows:
            if category_of(name) == category:
                pair = self.pair("test", name)
                records |= {record.name: record for record in (pair.source, pair.target)}
        return [records[name] for name in sorted(records)]

    def splits(self):
        """The only one, ``test``."""
        return ["test"]

    def pair_names(self, split, layout="large"):
        """Names ``<row>-<source>-<target>:<category>`` of the list's pairs, in its order. There is the split test only."""
        tabular.only_large(layout, "PF-WILLOW")
        if split != "test":
            raise InputError(f"PF-WILLOW has no split {split!r}: its only one is test")
        return list(self._rows)

    def pairs(self, split, layout="large", categories=None):
        """The :class:`PairRecord` of a split, optionally of some categories only."""
        return selected_pairs(self, split, layout, categories)

    def pair(self, split, name, category=None):
        """One :class:`PairRecord` by its name."""
        self.pair_names(split)
        if name not in self._rows:
            raise InputError(f"PF-WILLOW has no pair {name!r}")
        row, where = self._rows[name], f"{self.list_path}, pair {name}"
        values = [tabular.numbers(entry, ";", where) for entry in row[2 : 2 + 4 * LABELS]]
        x1, y1, x2, y2 = ([v for entry in values[i : i + LABELS] for v in entry] for i in range(0, 4 * LABELS, LABELS))
        source, target = (tabular.points(x, y, LABELS, where) for x, y in ((x1, y1), (x2, y2)))
        return PairRecord(name, self._record(row[0], source, name), self._record(row[1], target, name))

    @cached_property
    def _rows(self):
        """{pair name: row} of the pair list."""
        rows = tabular.read_rows(self.list_path, 2 + 4 * LABELS, _REMEDY)
        return {tabular.pair_name(i, r[0], r[1], Path(r[0].strip()).parent.name): r for i, r in enumerate(rows, start=1)}

    def _record(self, listed, keypoints, name):
        path = tabular.find_image(self.root, listed, _REMEDY)
        box = np.concatenate([np.nanmin(keypoints, axis=0), np.nanmax(keypoints, axis=0)])
        return ImageRecord(category_of(name), path.stem, path, *tabular.image_size(path), keypoints, box)
