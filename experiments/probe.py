r"""Asks a frozen encoder for the order of sentences and for the next one, trained for it or not.

    python -m experiments.probe --workdir=runs/base

A logistic regression is fitted to 4,096 pairs of the training text and scored on the ruler's held-
out pairs, once for each question; all runs are asked the same pairs. It sees the last hidden state
of [CLS], the means of it over both segments, and the absolute difference and the product of these
means. Its penalty is the one of five that does best on a fifth of the fitted pairs; nothing in it
is random. What it gets out of the same encoder before any training is told beside it: some of
the order can be told from the pieces alone. `probe.json` in the workdir takes the accuracies.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax import Array
from jaxtyping import Float, PyTree

from albert_jax.checkpoint import restore_params
from albert_jax.model import AlbertModel
from data_pipeline.config import SentenceObjective
from data_pipeline.corpus import Corpus, open_corpus
from data_pipeline.durable_files import write_atomically
from data_pipeline.pretraining import PretrainingDataset, evaluation_batches, ruler_config
from experiments.command_line import ExitCode, run
from experiments.config import ExperimentConfig
from experiments.evaluate import wilson_interval
from experiments.sentence_objectives import stem
from experiments.workdir import CHECKPOINTS, check_tokenizer, read_config

PROBE_FILE = "probe.json"
_SEED = 0  # of the pairs that probes are fitted to
_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # on squared weights, a pair
_NEWTON_STEPS = 12


class Examples(NamedTuple):
    """What a probe is fitted to or scored on."""

    features: Float[np.ndarray, "pairs features"]
    labels: Float[np.ndarray, " pairs"]  # 0 or 1


class Probe(NamedTuple):
    """A logistic regression on standardized features."""

    mean: Float[np.ndarray, " features"]
    deviation: Float[np.ndarray, " features"]
    weights: Float[np.ndarray, " features_and_one"]  # the bias last

    def accuracy(self, examples: Examples) -> float:
        """Share of the labels that have the greater probability."""
        scores = _with_ones((examples.features - self.mean) / self.deviation) @ self.weights
        return float(np.mean((scores > 0) == (examples.labels > 0.5)))


def make_features(
    model: AlbertModel, params: PyTree
) -> Callable[[dict[str, np.ndarray]], Float[Array, "batch features"]]:
    """The function from unpacked rows to what a probe sees of each."""

    @jax.jit
    def features(batch: dict[str, Array]) -> Array:
        outputs: Any = model.apply(
            {"params": params},
            batch["input_ids"],
            token_type_ids=batch["token_type_ids"],
            position_ids=batch["position_ids"],
            sequence_ids=batch["sequence_ids"],
        )
        hidden = outputs.last_hidden_state.astype(jnp.float32)
        real = batch["sequence_ids"] > 0
        first, second = (
            _mean_where(hidden, real & (batch["token_type_ids"] == segment)) for segment in (0, 1)
        )
        seen = [hidden[:, 0], first, second, jnp.abs(first - second), first * second]
        return jnp.concatenate(seen, axis=-1)

    return features


def _mean_where(
    hidden: Float[Array, "batch length hidden"], chosen: Array
) -> Float[Array, "batch hidden"]:
    chosen = chosen.astype(hidden.dtype)[..., None]
    return (hidden * chosen).sum(1) / jnp.maximum(chosen.sum(1), 1)


def gather_examples(
    features: Callable[[dict[str, np.ndarray]], Array], batches: Iterable[dict[str, np.ndarray]]
) -> Examples:
    """Features and labels of all pairs that are asked for."""
    seen, labels = [], []
    for batch in batches:
        asked = batch["sentence_order_weights"][:, 0] > 0
        seen.append(np.asarray(features(batch))[asked])
        labels.append(batch["sentence_order_labels"][asked, 0])
    return Examples(np.concatenate(seen).astype(np.float64), np.concatenate(labels).astype(float))


def fit_probe(examples: Examples) -> Probe:
    """The probe with the penalty that does best on every fifth example, fitted to all of them."""
    held_out = np.arange(len(examples.labels)) % 5 == 0
    fitted, scored = (
        Examples(examples.features[chosen], examples.labels[chosen])
        for chosen in (~held_out, held_out)
    )
    accuracies = [_fit(fitted, penalty).accuracy(scored) for penalty in _PENALTIES]
    return _fit(examples, _PENALTIES[int(np.argmax(accuracies))])


def _fit(examples: Examples, penalty: float) -> Probe:
    """Newton's method on the mean loss plus half the penalty times the squared weights.

    The loss is convex; steps are halved as long as they would raise it.
    """
    mean, deviation = examples.features.mean(0), examples.features.std(0) + 1e-6
    x, y = _with_ones((examples.features - mean) / deviation), examples.labels
    penalties = np.append(np.full(x.shape[1] - 1, penalty), 1e-9)

    def loss(weights: np.ndarray) -> float:
        scores = x @ weights
        return float(np.mean(np.logaddexp(0, scores) - y * scores) + penalties @ weights**2 / 2)

    weights = np.zeros(x.shape[1])
    for _ in range(_NEWTON_STEPS):
        probabilities = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        slope = x.T @ (probabilities - y) / len(y) + penalties * weights
        curvature = (x.T * (probabilities * (1 - probabilities))) @ x / len(y)
        step = np.linalg.solve(curvature + np.diag(penalties), slope)
        size = next((s for s in 0.5 ** np.arange(8) if loss(weights - s * step) < loss(weights)), 0)
        weights = weights - size * step
        if not size:
            break
    return Probe(mean, deviation, weights)


def _with_ones(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)


def probe_objective(
    objective: SentenceObjective,
    corpus: Corpus,
    config: ExperimentConfig,
    features: Callable[[dict[str, np.ndarray]], Array],
    *,
    num_pairs: int,
) -> tuple[float, int]:
    """The held-out accuracy of a probe for one question, and on how many pairs."""
    run, length, plans = config.run, config.evaluation_seq_length, config.data.plan_dir
    size = run.evaluation_batch_size

    def training() -> Iterator[dict[str, np.ndarray]]:
        data = ruler_config(length, objective, plan_dir=plans)
        batches = PretrainingDataset(corpus, data, seed=_SEED, global_batch_size=size).batches(
            start_step=0
        )
        for _ in range(-(-num_pairs // size)):
            yield next(batches)

    probe = fit_probe(gather_examples(features, training()))
    held_out = evaluation_batches(
        corpus,
        max_seq_length=length,
        batch_size=size,
        max_pairs=run.evaluation_pairs,
        plan_dir=plans,
        sentence_objective=objective,
    )
    examples = gather_examples(features, held_out)
    return probe.accuracy(examples), len(examples.labels)


def main() -> ExitCode:
    """Probes a workdir's newest checkpoint for both questions."""
    workdir = flags.FLAGS.workdir
    config = read_config(workdir, ExperimentConfig)
    corpus = open_corpus(flags.FLAGS.corpus_dir or config.data.corpus_dir)
    check_tokenizer(workdir, corpus)
    trained = restore_params(f"{workdir}/{CHECKPOINTS}", flags.FLAGS.step)["albert"]
    model = AlbertModel(config.model, dtype=config.run.dtype)
    untrained = jax.jit(model.initialize)(jax.random.key(config.seed))
    accuracies, pairs = {}, {}
    for kind, params in (("probe", trained), ("untrained", untrained)):
        features = make_features(model, params)
        for objective in (SentenceObjective.SOP, SentenceObjective.NSP):
            name = f"{stem(objective)}_{kind}"
            accuracies[name], pairs[name] = probe_objective(
                objective, corpus, config, features, num_pairs=flags.FLAGS.num_pairs
            )
            low, high = wilson_interval(accuracies[name], pairs[name])
            print(
                f"{name.replace('_', ' ')}: {accuracies[name]:.1%} of {pairs[name]} pairs "
                f"(95 % interval {low:.1%} to {high:.1%})"
            )
    content = {"accuracies": accuracies, "pairs": pairs, "fitted_pairs": flags.FLAGS.num_pairs}
    write_atomically(Path(workdir) / PROBE_FILE, json.dumps(content, indent=2) + "\n")
    return ExitCode.DONE


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "the run whose encoder is probed", required=True)
    flags.DEFINE_string("corpus_dir", None, "another corpus than the run's own")
    flags.DEFINE_integer("step", None, "which checkpoint; by default the newest")
    flags.DEFINE_integer("num_pairs", 4096, "pairs that a probe is fitted to", lower_bound=64)
    run(main)
