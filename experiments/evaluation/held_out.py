"""Evaluation on held-out text, the same for every run however it trains."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int64, PyTree

from albert_jax.batch import PretrainingBatch
from albert_jax.devices.sharding import place_batch, rows_of_process
from albert_jax.tasks.distillation.config import DistillationConfig
from albert_jax.training.losses import Metrics, Ratio, summarize
from albert_jax.training.parallel import compile_eval_step
from data_pipeline.config import SentenceObjective
from data_pipeline.corpus.reader import Corpus
from data_pipeline.corpus.splits import VALIDATION
from data_pipeline.errors import InputError
from data_pipeline.pretraining.dataset import HeldOutDataset
from data_pipeline.pretraining.masking import shuffle_visible_words
from experiments.evaluation.filled_gaps import NUM_SAMPLES, fill_gaps
from experiments.metrics.curves import Panel
from experiments.pages.samples import Sample
from experiments.run.compiled_steps import model_of, objective_of
from experiments.run.config import ExperimentConfig

_SHUFFLE_SEED = 0


class Baselines(NamedTuple):
    """Results on the same masked positions without reading, from token counts alone."""

    most_frequent_accuracy: float  # of always predicting the token that is most often masked
    unigram_entropy: float  # nats; no fixed distribution over tokens has a lower loss


class HeldOutEvaluator:
    """Held-out batches, opened once, and the evaluation of parameters on them.

    Args:
        corpus: the corpus whose held-out text is read.
        config: the run's model, row length and evaluation size.
        mesh: the devices.

    Attributes:
        dataset: the pairs that masked LM is measured on, this process's rows of each batch.
        model: the run's model, with the heads of pre-training.
        best_metric: the metric that marks the best checkpoint.
        panels: the metrics that are plotted.
        decides: False: evaluations do not decide how a run ends.

    Raises:
        InputError: nothing is held out, or a batch does not divide over the devices.
    """

    best_metric = "masked_lm_accuracy"
    decides = False

    def __init__(self, corpus: Corpus, config: ExperimentConfig, mesh: Mesh) -> None:
        if not corpus.splits[VALIDATION].num_documents:
            raise InputError(f"corpus {corpus.path} holds no text out for validation")
        try:
            self._rows = rows_of_process(config.run.evaluation_batch_size, mesh)
        except ValueError as error:
            raise InputError(f"--config.run.evaluation_batch_size: {error}") from error
        self._corpus, self._config, self._mesh = corpus, config, mesh
        objective = config.data.sentence_objective
        self.dataset = self._open(self._rows, SentenceObjective.SOP)
        self._random_segments = None
        if objective.random_segments:
            self._random_segments = self._open(self._rows, objective)
        self.model = model_of(config)
        self.panels = pretraining_panels(objective)
        self._sentence_metric = objective.metric_name
        untaught = dataclasses.replace(
            config,
            optimizer=dataclasses.replace(config.optimizer, z_loss_weight=0.0),
            distillation=DistillationConfig(),
        )
        self._loss_fn = objective_of(untaught, self.model).loss_fn
        self._eval_step: Callable[[PyTree, Any], Metrics] | None = None

    def evaluate(self, params: PyTree) -> dict[str, float]:
        """Return the metrics of the objectives trained on.

        These are losses and accuracies, the context gap, and the number of pairs. Masked LM is
        measured on the same pairs whatever the sentence objective. A sentence objective with random
        segments is measured on its own pairs.
        """
        if self._eval_step is None:
            self._eval_step = compile_eval_step(self._loss_fn, params, self._mesh)
        step = functools.partial(self._eval_step, params)
        sums = self.measure(step)
        shuffled = self._add_up(step, map(_shuffle, self.dataset.batches()))
        if self._random_segments is not None:
            pairs = self._add_up(step, self._random_segments.batches())
            sums |= {name: pairs[name] for name in pairs if not name.startswith("masked_lm")}
        metrics = summarize(sums)
        metrics["context_gap"] = summarize(shuffled)["masked_lm_loss"] - metrics["masked_lm_loss"]
        if self._sentence_metric is not None:
            metrics["pairs"] = float(sums[f"{self._sentence_metric}_loss"].weight)
        return metrics

    def measure(self, step: Callable[[PretrainingBatch], Metrics]) -> Metrics:
        """Return the sum of a step's metrics over the held-out batches."""
        return self._add_up(step, self.dataset.batches())

    def samples(self, params: PyTree) -> list[Sample]:
        """Return held-out texts with gaps that the model fills; the same texts for every run."""
        rows = np.arange(min(NUM_SAMPLES, self._config.run.evaluation_batch_size))
        with self._open(rows, SentenceObjective.SOP).batches() as batches:
            batch = next(batches)
        tokenizer = self._corpus.load_tokenizer()
        return fill_gaps(self.model, params, batch, tokenizer, self._mesh)

    def baselines(self) -> Baselines:
        """Return the results of guessing without reading, on the positions of all processes."""
        import scipy.stats

        counts: Counter[int] = Counter()
        for batch in self._open(None, SentenceObjective.SOP).batches():
            counts.update(batch["masked_lm_ids"][batch["masked_lm_weights"] > 0].tolist())
        probabilities = np.array(list(counts.values())) / counts.total()
        entropy = scipy.stats.entropy(probabilities)
        return Baselines(float(probabilities.max()), float(entropy))

    def _open(
        self, rows: Int64[np.ndarray, " rows"] | None, objective: SentenceObjective
    ) -> HeldOutDataset:
        run = self._config.run
        return HeldOutDataset(
            self._corpus,
            max_seq_length=self._config.evaluation_seq_length,
            batch_size=run.evaluation_batch_size,
            max_pairs=run.evaluation_pairs,
            rows=rows,
            plan_dir=self._config.data.plan_dir,
            sentence_objective=objective,
        )

    def _add_up(
        self, step: Callable[[Any], Metrics], batches: Iterable[dict[str, np.ndarray]]
    ) -> Metrics:
        total: dict[str, np.ndarray] = {}
        for batch in batches:
            placed = place_batch(PretrainingBatch.from_numpy(batch), self._mesh)
            for name, ratio in jax.device_get(step(placed)).items():
                total[name] = total.get(name, 0) + np.asarray(ratio, np.float64)
        return {name: Ratio(*sums) for name, sums in total.items()}


def _shuffle(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return shuffle_visible_words(batch, _SHUFFLE_SEED)


def pretraining_panels(objective: SentenceObjective) -> Sequence[Panel]:
    """Return the metrics of a run that are plotted, with their titles."""
    panels = [
        ("masked_lm_loss", "masked-LM loss (nats)"),
        ("masked_lm_accuracy", "masked-LM accuracy"),
        ("context_gap", "context gap (nats)"),
        ("detection_recall", "replaced tokens that are found"),
        ("detection_precision", "replaced ones of those found"),
    ]
    if name := objective.metric_name:
        panels.append((f"{name}_accuracy", f"{name.replace('_', '-')} accuracy"))
    return panels


def format_metrics(metrics: Mapping[str, float], baselines: Baselines) -> str:
    """Return a table of `HeldOutEvaluator.evaluate` and `HeldOutEvaluator.baselines`."""
    lines = [
        f"masked LM       accuracy {metrics['masked_lm_accuracy']:.1%} (the most frequent token "
        f"alone: {baselines.most_frequent_accuracy:.1%})",
        f"                loss {metrics['masked_lm_loss']:.3f} nats (entropy of single tokens: "
        f"{baselines.unigram_entropy:.3f})",
        f"context gap     {metrics['context_gap']:.3f} nats lost when visible words are shuffled",
    ]
    if "detection_accuracy" in metrics:
        lines.append(
            f"detection       accuracy {metrics['detection_accuracy']:.1%} (calling all original: "
            f"{1 - metrics['replaced_fraction']:.1%}), recall "
            f"{metrics.get('detection_recall', 0):.1%}, precision "
            f"{metrics.get('detection_precision', 0):.1%}"
        )
    for name in filter(None, (objective.metric_name for objective in SentenceObjective)):
        if f"{name}_accuracy" in metrics:
            accuracy, pairs = metrics[f"{name}_accuracy"], round(metrics["pairs"])
            lines.append(
                f"{name.replace('_', ' '):15s} accuracy {format_accuracy(accuracy, pairs)}, "
                f"loss {metrics[f'{name}_loss']:.3f}"
            )
    return "\n".join(lines)


def format_accuracy(accuracy: float, trials: int) -> str:
    """Return an accuracy with its 95 % interval.

    Example: 0.6 of 100 gives ``60.0% of 100 pairs (95 % interval 50.2% to 69.1%)``.
    """
    low, high = accuracy_interval(accuracy, trials)
    return f"{accuracy:.1%} of {trials} pairs (95 % interval {low:.1%} to {high:.1%})"


def accuracy_interval(accuracy: float, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy over a number of trials (Wilson score)."""
    import scipy.stats

    hits = scipy.stats.binomtest(round(accuracy * trials), trials)
    interval = hits.proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)
