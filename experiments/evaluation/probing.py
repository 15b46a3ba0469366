"""Linear probes of a frozen encoder."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, PyTree

from albert_jax.model import AlbertModel
from data_pipeline.config import SentenceObjective
from data_pipeline.corpus.reader import Corpus
from data_pipeline.pretraining.dataset import PretrainingDataset, held_out_batches, held_out_config
from experiments.run.config import ExperimentConfig

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
        data = held_out_config(length, objective, plan_dir=plans)
        batches = PretrainingDataset(corpus, data, seed=_SEED, global_batch_size=size).batches(
            start_step=0
        )
        for _ in range(-(-num_pairs // size)):
            yield next(batches)

    probe = fit_probe(gather_examples(features, training()))
    held_out = held_out_batches(
        corpus,
        max_seq_length=length,
        batch_size=size,
        max_pairs=run.evaluation_pairs,
        plan_dir=plans,
        sentence_objective=objective,
    )
    examples = gather_examples(features, held_out)
    return probe.accuracy(examples), len(examples.labels)
