"""What kinds of evaluation there are, by what a data set publishes."""

from semalign3d_core.evaluation.keypoints import results, scoring
from semalign3d_core.evaluation.keypoints.pairs import keypoint_pair
from semalign3d_core.evaluation.masks import report as mask_report
from semalign3d_core.evaluation.masks import transfer as mask_transfer
from semalign3d_core.evaluation.report import report
from semalign3d_core.evaluation.run.evaluation import Task

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
