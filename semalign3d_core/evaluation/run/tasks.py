"""What kinds of evaluation there are, by what a data set publishes."""

from collections.abc import Callable
from dataclasses import dataclass

from semalign3d_core.evaluation.keypoints import results, scoring
from semalign3d_core.evaluation.keypoints.pairs import keypoint_pair
from semalign3d_core.evaluation.masks import report as mask_report
from semalign3d_core.evaluation.masks import transfer as mask_transfer
from semalign3d_core.evaluation.report import report


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


# annotation of the data set -> task
TASKS = {
    "keypoints": Task(
        keypoint_pair,
        lambda evaluation, pair, points: scoring.score_pair(pair, points, evaluation.config.alpha),
        lambda evaluation, pair, problem: scoring.skipped_pair(pair, problem, evaluation.config.alpha),
        results.result_dictionary,
        results.write_tables,
        results.terminal_table,
        report.write_report,
    ),
    "masks": Task(
        mask_transfer.mask_pair,
        mask_transfer.score,
        mask_transfer.skipped,
        mask_transfer.result_dictionary,
        mask_transfer.write_tables,
        mask_transfer.terminal_table,
        mask_report.write_report,
    ),
}
