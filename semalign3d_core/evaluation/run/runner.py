"""An evaluation from the configuration to the files of its results."""

import functools
import time
import uuid
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from semalign3d_core.datasets import DATASETS, open_dataset
from semalign3d_core.evaluation.keypoints.kap import source_count
from semalign3d_core.evaluation.keypoints.pairs import image_items, image_key, match_items, read_pairs, threshold_kind
from semalign3d_core.evaluation.keypoints.predictions import problem_of, read_predictions, write_predictions
from semalign3d_core.evaluation.keypoints.results import plain_config
from semalign3d_core.evaluation.run.config import EvaluationConfig
from semalign3d_core.evaluation.run.engine import ENGINES
from semalign3d_core.evaluation.run.evaluation import Evaluation
from semalign3d_core.evaluation.run.hardware import latency
from semalign3d_core.evaluation.run.methods import check_method, with_backbone
from semalign3d_core.evaluation.run.tasks import TASKS
from semalign3d_core.evaluation.run.worker import check_providers, run_item
from semalign3d_core.perception.backbones.precision import choose_device
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.files import sha256_of_file, write_json
from semalign3d_core.runtime.outputs import check_replaceable

RESULTS = ("results.json", "results.csv", "pairs.csv", "predictions.jsonl", "report.html")


def evaluate(config: EvaluationConfig) -> Evaluation:
    """Runs an evaluation, writes its files into ``config.output`` and returns the :class:`Evaluation`."""
    config = with_backbone(config)
    if not (config.output / "config.json").exists():  # else they are those of an earlier run
        for name in RESULTS:
            check_replaceable(config.output / name, same_kind=lambda _: False)
    write_json(config.output / "config.json", plain_config(config))  # first of all, so that an unwritable folder costs no work
    started = time.monotonic()
    dataset = open_dataset(config.dataset, config.kind)
    task = TASKS[dataset.annotation]
    evaluation = Evaluation(config, dataset, task)
    with ExitStack() as stack:
        run = None
        if config.predictions is None:
            device = str(choose_device(config.device))
            run = _Run(evaluation, stack.enter_context(ENGINES[config.engine](config.workers, config.retries, device)))
            with _clock(evaluation, "prepare"):
                run.check("")
        with _clock(evaluation, "read"):
            pairs = read_pairs(dataset, config, task.make_pair)
            _resolve(evaluation, dataset, pairs)
        write_json(config.output / "config.json", evaluation.resolved)
        usable = [pair for pair in pairs if not pair.problem]
        points, problems = _predicted(evaluation, usable) if run is None else _computed(evaluation, usable, run)
    problems |= {pair.name: pair.problem for pair in pairs if pair.problem}
    with _clock(evaluation, "score"):
        evaluation.scores = [_score(evaluation, pair, points, problems) for pair in pairs]
    evaluation.seconds["total"] = time.monotonic() - started
    evaluation.results = task.result_dictionary(evaluation)
    write_predictions(config.output / "predictions.jsonl", {s.pair.name: s.points for s in evaluation.scores if s.points is not None})
    task.write_tables(evaluation)
    return evaluation


def _resolve(evaluation, dataset, pairs):
    """Fills in what the configuration left open."""
    config = evaluation.config
    evaluation.threshold = threshold_kind(dataset, config)
    evaluation.categories = sorted({pair.category for pair in pairs})
    evaluation.method = check_method(config, dataset, evaluation.categories)
    if evaluation.method.models:
        evaluation.hashes["models"] = evaluation.method.models
    evaluation.resolved = {
        **plain_config(config),
        "kind": next(kind for kind, dataset_class in DATASETS.items() if type(dataset) is dataset_class),
        "categories": evaluation.categories,
        "threshold": evaluation.threshold,
        "device": str(choose_device(config.device)),
        "cache": str(config.cache_folder),
        "method_settings": evaluation.method.settings,
    }


def _score(evaluation, pair, points, problems):
    if pair.name in problems:
        return evaluation.task.skipped(evaluation, pair, problems[pair.name])
    return evaluation.task.score(evaluation, pair, points.get(pair.name, np.zeros((0, 2))))


def _predicted(evaluation, pairs):
    """({pair: points}, {pair: problem}) of a prediction file."""
    config = evaluation.config
    points, problems = read_predictions(config.predictions)
    found = {pair.name: problem_of(pair, points, problems) for pair in pairs if pair.labels}
    found = {name: problem for name, problem in found.items() if problem}
    if found and config.on_bad_input == "error":
        name, problem = next(iter(found.items()))
        raise InputError(
            f"{config.predictions}: {len(found)} of {len(pairs)} pairs cannot be scored, first {name}: {problem} "
            "(--on-bad-input skip counts them as wrong)"
        )
    evaluation.extra_predictions = len(set(points) - {pair.name for pair in pairs})
    evaluation.hashes["predictions"] = sha256_of_file(config.predictions)
    return points, found


def _computed(evaluation, pairs, run):
    """({pair: points}, {pair: problem}) of the configured method."""
    config = evaluation.config
    scorable = {pair.name for pair in pairs if pair.labels}
    pairs = [pair for pair in pairs if pair.labels or config.kap != "none" and source_count(pair)]
    with _clock(evaluation, "prepare"):
        run.check(evaluation.categories[0])
    bad = {}
    with _clock(evaluation, "images"):
        for item, result in run.over(image_items(pairs), "image", lambda item: 1):
            key = image_key(item.category, item.record)
            if result.failure:
                bad[key] = result.failure
            evaluation.digests[key] = result.digest
    problems = {pair.name: reason for pair in pairs if (reason := _bad_image(pair, bad))}
    points: dict[str, np.ndarray] = {}
    with _clock(evaluation, "pairs"):
        good = [pair for pair in pairs if pair.name not in problems]
        for item, result in run.over(match_items(good, evaluation.digests), "pair", lambda item: len(item.queries)):
            problems |= {query.name: result.failure for query in item.queries if result.failure}
            points |= result.points
            evaluation.kap |= result.kap
    return points, {name: reason for name, reason in problems.items() if name in scorable}  # what only KAP needs is not PCK's problem


def _bad_image(pair, bad):
    keys = (image_key(pair.category, side) for side in (pair.record.source, pair.record.target))
    return next((bad[key] for key in keys if key in bad), None)


class _Run:
    """The work of one evaluation on its engine, whose processes keep what they have loaded from one list of items to the next."""

    def __init__(self, evaluation, engine):
        self.evaluation, self.engine, self.name = evaluation, engine, uuid.uuid4().hex

    def check(self, category):
        """Raises for what is missing before there is any work: see :func:`check_providers`."""
        for _ in self.engine.run(functools.partial(check_providers, self.evaluation.config, self.name), [category]):
            pass

    def over(self, items, what, size):
        """Yields (item, result) as the engine delivers them, with a progress bar; bad input is an error where configured."""
        config, measured = self.evaluation.config, []
        work = functools.partial(run_item, config, self.name)
        with tqdm(total=sum(map(size, items)), desc=f"{what}s", unit=what, mininterval=0.5, disable=None) as bar:
            for index, result in self.engine.run(work, items):
                self.evaluation.cache.update(result.counts)
                self.evaluation.processes.add(result.process)
                measured.append((size(items[index]), replace(result, points={}, kap={})))
                if result.failure and config.on_bad_input == "error":
                    raise InputError(f"{items[index]}: {result.failure} (--on-bad-input skip counts its pairs as wrong and goes on)")
                yield items[index], result
                bar.update(size(items[index]))
        self.evaluation.latency[what] = latency(measured)


class _clock:
    """Adds the wall time of a block to ``evaluation.seconds``."""

    def __init__(self, evaluation, stage):
        self.seconds, self.stage = evaluation.seconds, stage

    def __enter__(self):
        self.started = time.monotonic()

    def __exit__(self, *error):
        self.seconds[self.stage] = self.seconds.get(self.stage, 0.0) + time.monotonic() - self.started
