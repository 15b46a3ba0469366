"""Evaluation on held-out text."""

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int64, PyTree

from albert_jax.batch import PretrainingBatch
from albert_jax.model import AlbertForPreTraining
from albert_jax.tasks.pretraining import pretraining_objective
from albert_jax.training.losses import Metrics, Ratio, summarize
from albert_jax.training.parallel import compile_eval_step, place_batch, rows_of_process
from data_pipeline.config import SentenceObjective
from data_pipeline.corpus.reader import VALIDATION, Corpus
from data_pipeline.errors import InputError
from data_pipeline.pretraining.dataset import held_out_batches
from data_pipeline.pretraining.masking import shuffle_visible_words
from experiments.evaluation.sentence_objectives import stem
from experiments.run.config import ExperimentConfig
from experiments.run.curves import Panel

_SHUFFLE_SEED = 0


class Baselines(NamedTuple):
    """What can be had on the same masked positions without reading, by counting them alone."""

    most_frequent_accuracy: float  # always guessing the piece that is most often masked
    unigram_entropy: float  # nats; no fixed distribution over pieces has a lower loss


class HeldOutEvaluator:
    """Held-out batches, and the evaluation of parameters on them.

    Args:
        corpus: whose held-out text is read.
        config: the run's model, row length and evaluation size.
        mesh: the devices.

    Attributes:
        model: the run's, with the heads of pre-training.

    Raises:
        InputError: nothing is held out, or a batch does not divide over the devices.
    """

    def __init__(self, corpus: Corpus, config: ExperimentConfig, mesh: Mesh) -> None:
        if not corpus.splits[VALIDATION].num_documents:
            raise InputError(f"corpus {corpus.path} holds no text out for validation")
        try:
            rows_of_process(config.run.evaluation_batch_size, mesh)
        except ValueError as error:
            raise InputError(f"--config.run.evaluation_batch_size: {error}") from error
        self._corpus, self._config, self._mesh = corpus, config, mesh
        self.model = AlbertForPreTraining(config.model, dtype=config.run.dtype)
        self._sentence_metric = stem(config.data.sentence_objective)
        self._loss_fn = pretraining_objective(self.model, self._sentence_metric).loss_fn
        self._eval_step: Callable[[PyTree, Any], Metrics] | None = None

    def batches(
        self, objective: SentenceObjective = SentenceObjective.SOP
    ) -> Iterator[dict[str, np.ndarray]]:
        """The held-out batches, this process's rows of each."""
        rows = rows_of_process(self._config.run.evaluation_batch_size, self._mesh)
        return self._read(rows, objective)

    def _read(
        self, rows: Int64[np.ndarray, " rows"] | None, objective: SentenceObjective
    ) -> Iterator[dict[str, np.ndarray]]:
        run = self._config.run
        return held_out_batches(
            self._corpus,
            max_seq_length=self._config.evaluation_seq_length,
            batch_size=run.evaluation_batch_size,
            max_pairs=run.evaluation_pairs,
            rows=rows,
            plan_dir=self._config.data.plan_dir,
            sentence_objective=objective,
        )

    def evaluate(self, params: PyTree) -> dict[str, float]:
        """Loss and accuracy of the objectives trained on, the context gap, and the pairs asked.

        Masked LM is measured on the same pairs whatever is asked of them. A head for the next
        sentence is measured on pairs of its own.
        """
        if self._eval_step is None:
            self._eval_step = compile_eval_step(self._loss_fn, params, self._mesh)
        step = functools.partial(self._eval_step, params)
        sums = self.measure(step)
        blind = self._add_up(step, map(_shuffle, self.batches()))
        objective = self._config.data.sentence_objective
        if objective is SentenceObjective.NSP:
            asked = self._add_up(step, self.batches(objective))
            sums |= {name: asked[name] for name in asked if not name.startswith("masked_lm")}
        figures = summarize(sums)
        figures["context_gap"] = summarize(blind)["masked_lm_loss"] - figures["masked_lm_loss"]
        if self._sentence_metric is not None:
            figures["pairs"] = float(sums[f"{self._sentence_metric}_loss"].weight)
        return figures

    def measure(self, step: Callable[[PretrainingBatch], Metrics]) -> Metrics:
        """The sum of a step's metrics over the held-out batches."""
        return self._add_up(step, self.batches())

    def _add_up(
        self, step: Callable[[Any], Metrics], batches: Iterable[dict[str, np.ndarray]]
    ) -> Metrics:
        total: dict[str, np.ndarray] = {}
        for batch in batches:
            placed = place_batch(PretrainingBatch.from_numpy(batch), self._mesh)
            for name, ratio in jax.device_get(step(placed)).items():
                total[name] = total.get(name, 0) + np.asarray(ratio, np.float64)
        return {name: Ratio(*sums) for name, sums in total.items()}

    def baselines(self) -> Baselines:
        """What guessing gives on the same positions, those of all processes."""
        counts: Counter[int] = Counter()
        for batch in self._read(None, SentenceObjective.SOP):
            counts.update(batch["masked_lm_ids"][batch["masked_lm_weights"] > 0].tolist())
        total = counts.total()
        shares = np.array(list(counts.values())) / total
        return Baselines(float(shares.max()), float(-(shares * np.log(shares)).sum()))


def _shuffle(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return shuffle_visible_words(batch, _SHUFFLE_SEED)


def wilson_interval(share: float, trials: float, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share seen in a number of trials (Wilson's score).

    Example: 60 of 100 give 0.502 to 0.691.
    """
    center = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    spread = z / (1 + z**2 / trials)
    spread *= math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return center - spread, center + spread


def panels(objective: SentenceObjective) -> list[Panel]:
    """The figures of a run that are drawn."""
    drawn = [
        ("masked_lm_loss", "masked-LM loss (nats)"),
        ("masked_lm_accuracy", "masked-LM accuracy"),
        ("context_gap", "context gap (nats)"),
    ]
    if name := stem(objective):
        drawn.append((f"{name}_accuracy", f"{name.replace('_', '-')} accuracy"))
    return drawn
