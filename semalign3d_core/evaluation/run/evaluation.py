"""What an evaluation knows and gathers: the value that its steps, reports and studies hand on."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from semalign3d_core.datasets.records import Dataset
from semalign3d_core.evaluation.run.config import EvaluationConfig


@dataclass(frozen=True)
class Task:
    """The steps of an evaluation that depend on what is scored.

    make_pair(dataset, config, record, category) -> :class:`EvaluationPair`;  score(evaluation, pair, points), skipped(evaluation,
    pair, problem) -> a score with ``pair``, ``points`` and ``problem``;  result_dictionary(evaluation), write_tables(evaluation);
    terminal_table(results) -> text;  write_report(evaluation, sections) -> path
    """

    make_pair: Callable
    score: Callable
    skipped: Callable
    result_dictionary: Callable
    write_tables: Callable
    terminal_table: Callable
    write_report: Callable


@dataclass(frozen=True)
class MethodFacts:
    """What is known of a method before it runs.

    settings: everything it was told or resolved from presets (JSON);  models: {category: content hash}
    kap_scores: what KAP judges, ``features`` or the ``method``
    told_keypoints: whether the method is told that the queries of a pair are different keypoints of the category
    """

    settings: dict = field(default_factory=dict)
    models: dict = field(default_factory=dict)
    kap_scores: str = "features"
    told_keypoints: bool = False


@dataclass
class Evaluation:
    """What an evaluation gathers on its way to the result files.

    scores: one per pair in the data set's order, see :class:`Task`;  results: the dictionary of ``results.json``
    digests: {:func:`image_key`: hash of what was seen of an image};  cache: counts;  seconds: {stage: wall time}
    latency: {"image", "pair": median and p95};  processes: of all items, see :class:`ItemResult`
    extra_predictions: pairs of a prediction file that nobody asked for;  kap: {pair: its samples for KAP}, if asked for
    resolved: the configuration as JSON with everything filled in that it left open;  categories: of the pairs, sorted
    task: what the data set's annotation asks for;  method: :class:`MethodFacts`
    """

    config: EvaluationConfig
    dataset: Dataset
    task: Task
    threshold: str = "bbox"
    method: MethodFacts = MethodFacts()
    resolved: dict = field(default_factory=dict)
    categories: list = field(default_factory=list)
    scores: list = field(default_factory=list)
    results: dict = field(default_factory=dict)
    hashes: dict = field(default_factory=dict)
    digests: dict = field(default_factory=dict)
    cache: Counter = field(default_factory=Counter)
    seconds: dict = field(default_factory=dict)
    latency: dict = field(default_factory=dict)
    processes: set = field(default_factory=set)
    extra_predictions: int = 0
    kap: dict = field(default_factory=dict)
