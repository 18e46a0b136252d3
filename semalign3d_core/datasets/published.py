"""Published data sets: where they are, how large, under which terms, and how many files make them complete.

Nobody publishes checksums of these archives. So the hash of the first download is recorded beside it, later downloads must have the same,
and what was unpacked is checked by counts.
"""

from dataclasses import dataclass

_WILLOW = "https://www.di.ens.fr/willow/research"
_LISTS = f"{_WILLOW}/cnngeometric/other_resources"


@dataclass(frozen=True)
class Archive:
    """One file to fetch.

    url: official address;  into: folder below the output that it is unpacked into, or copied to if it is no archive
    manual: why it cannot be fetched by a program, "" if it can: then ``--source`` must name a copy
    """

    url: str
    into: str = ""
    manual: str = ""

    @property
    def name(self) -> str:
        """File name."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class PublishedData:
    """A data set that can be fetched.

    folder: below the output, what the other commands are given;  archives: its files;  megabytes: about, to fetch and unpacked
    licence: terms, as far as they are stated;  counts: {pattern of files below ``folder``: how many there must be}
    needs: other data sets that it is used with
    """

    title: str
    folder: str
    archives: tuple[Archive, ...]
    megabytes: tuple[int, int]
    licence: str
    counts: dict[str, int]
    needs: tuple[str, ...] = ()


PUBLISHED = {
    "spair71k": PublishedData(
        "SPair-71k (Min et al., 2019)",
        "SPair-71k",
        (Archive("https://cvlab.postech.ac.kr/research/SPair-71k/data/SPair-71k.tar.gz"),),
        (230, 700),
        "none stated; images of PASCAL VOC 2012, whose terms are those of Flickr: research only",
        {
            "JPEGImages/*/*.jpg": 1800,
            "ImageAnnotation/*/*.json": 1800,
            "Segmentation/*/*.png": 1800,
            "PairAnnotation/trn/*.json": 53340,
            "PairAnnotation/val/*.json": 5384,
            "PairAnnotation/test/*.json": 12234,
            "Layout/large/*.txt": 3,
        },
    ),
    "spair_u": PublishedData(
        "SPair-U (Mariotti et al., 2025)",
        "SPair-U",
        (Archive("https://groups.inf.ed.ac.uk/hbilen-data/data/JamaisVuData/SPair-U.zip"),),
        (20, 60),
        "see https://github.com/VICO-UoE/JamaisVu; images are those of SPair-71k",
        {},
        needs=("spair71k",),
    ),
    "ap10k": PublishedData(
        "AP-10K (Yu et al., 2021)",
        "ap-10k",
        (
            Archive("ap-10k.zip", manual="it lies on Google Drive, linked from https://github.com/AlexTheBad/AP-10K"),
            Archive("https://raw.githubusercontent.com/Junyi42/GeoAware-SC/master/data/ap-10k_is_crowd.txt", "ap-10k"),
        ),
        (1800, 1900),
        "CC BY 4.0 for the annotation; images of several sources",
        {"data/*.jpg": 10015, "annotations/ap10k-*-split1.json": 3},
    ),
    "pf_pascal": PublishedData(
        "PF-PASCAL (Ham et al., 2017)",
        "PF-dataset-PASCAL",
        (
            Archive(f"{_WILLOW}/proposalflow/dataset/PF-dataset-PASCAL.zip"),
            Archive(f"{_LISTS}/val_pairs_pf_pascal.csv", "PF-dataset-PASCAL"),
            Archive(f"{_LISTS}/test_pairs_pf_pascal.csv", "PF-dataset-PASCAL"),
        ),
        (220, 240),
        "none stated; images of PASCAL VOC: research only",
        {"*_pairs_pf_pascal.csv": 2},
    ),
    "pf_willow": PublishedData(
        "PF-WILLOW (Ham et al., 2016)",
        "PF-dataset",
        (Archive(f"{_WILLOW}/proposalflow/dataset/PF-dataset.zip"), Archive(f"{_LISTS}/test_pairs_pf.csv", "PF-dataset")),
        (20, 25),
        "none stated: research only",
        {"*/*.png": 100, "*/*.mat": 100, "test_pairs_pf.csv": 1},
    ),
    "caltech101": PublishedData(
        "Caltech-101 (Fei-Fei et al., 2004)",
        "caltech-101",
        (
            Archive("https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip"),
            Archive(f"{_LISTS}/test_pairs_caltech_with_category.csv", "caltech-101"),
        ),
        (137, 160),
        "CC BY 4.0",
        {"test_pairs_caltech_with_category.csv": 1},
    ),
}
