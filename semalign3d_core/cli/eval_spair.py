"""Score a method, or anybody's predictions, on a data set: PCK tables, JSON, CSV and an HTML report."""

import sys

from semalign3d_core.evaluation.run.config import EvaluationConfig

Options = EvaluationConfig


def run(options: EvaluationConfig) -> int:
    """Runs the evaluation, prints the table and returns the exit code."""
    from semalign3d_core.evaluation.run.runner import evaluate

    if options.build:
        from semalign3d_core.evaluation.reproduction import with_models

        options = with_models(options)
    evaluation = evaluate(options)
    task, sections = evaluation.task, []
    if options.studies:
        from semalign3d_core.evaluation.studies.ablation import run_ablation

        task.write_report(evaluation)  # what is known so far: the rest may take hours
        sections = run_ablation(evaluation)
    if options.training_ablation:
        from semalign3d_core.evaluation.studies.training_ablation import run_training_ablation

        task.write_report(evaluation, sections)
        sections = [*sections, *run_training_ablation(evaluation)]
    report = task.write_report(evaluation, sections)
    print(task.terminal_table(evaluation.results))
    print(f"\nwritten to {options.output}: results.json predictions.jsonl results.csv pairs.csv {report.name}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The console script ``eval_spair``."""
    from semalign3d_core.cli.command import run_command

    return run_command("semalign3d_core.cli.eval_spair", sys.argv[1:] if arguments is None else arguments, "eval_spair")


if __name__ == "__main__":
    sys.exit(main())
