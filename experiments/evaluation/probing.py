"""Linear probes of a frozen encoder."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, PyTree
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from albert_jax.model import AlbertModel
from data_pipeline.config import SentenceObjective
from data_pipeline.corpus.reader import Corpus
from data_pipeline.pretraining.dataset import HeldOutDataset, PretrainingDataset, held_out_config
from experiments.run.config import ExperimentConfig

PROBE_FILE = "probe.json"
_SEED = 0  # of the pairs that probes are fitted to
_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # on squared weights, per pair


class ProbeExamples(NamedTuple):
    """Pairs that a probe is fitted to or scored on."""

    features: Float[np.ndarray, "pairs features"]
    labels: Float[np.ndarray, " pairs"]  # 0 or 1

    def select(self, chosen: Bool[np.ndarray, " pairs"]) -> "ProbeExamples":
        """Return some of the pairs."""
        return ProbeExamples(self.features[chosen], self.labels[chosen])


def make_features(
    model: AlbertModel, params: PyTree
) -> Callable[[dict[str, np.ndarray]], Float[Array, "batch features"]]:
    """Return a function that maps unpacked rows to the features of each."""

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
) -> ProbeExamples:
    """Return the features and labels of all pairs that have a label."""
    seen, labels = [], []
    for batch in batches:
        asked = batch["sentence_order_weights"][:, 0] > 0
        seen.append(np.asarray(features(batch))[asked])
        labels.append(batch["sentence_order_labels"][asked, 0])
    return ProbeExamples(
        np.concatenate(seen).astype(np.float64), np.concatenate(labels).astype(float)
    )


def fit_probe(examples: ProbeExamples) -> Pipeline:
    """Fit a probe to all examples, with the penalty that does best on a held-out fifth."""
    held_out = np.arange(len(examples.labels)) % 5 == 0
    fitted, scored = examples.select(~held_out), examples.select(held_out)
    accuracies = [fit_logistic_regression(fitted, p).score(*scored) for p in _PENALTIES]
    return fit_logistic_regression(examples, _PENALTIES[int(np.argmax(accuracies))])


def fit_logistic_regression(examples: ProbeExamples, penalty: float) -> Pipeline:
    """Fit a logistic regression to standardized features.

    It minimizes the mean loss plus half the penalty times the squared weights. The bias is not
    penalized.
    """
    inverse = 1 / (penalty * len(examples.labels))
    regression = LogisticRegression(C=inverse, solver="newton-cholesky", tol=1e-8, max_iter=200)
    return make_pipeline(StandardScaler(), regression).fit(*examples)


def probe_objective(
    objective: SentenceObjective,
    corpus: Corpus,
    config: ExperimentConfig,
    features: Callable[[dict[str, np.ndarray]], Array],
    *,
    num_pairs: int,
) -> tuple[float, int]:
    """Return the held-out accuracy of a probe for a sentence objective, and the number of pairs."""
    run, length, plans = config.run, config.evaluation_seq_length, config.data.plan_dir
    size = run.evaluation_batch_size

    def training() -> Iterator[dict[str, np.ndarray]]:
        data = held_out_config(length, objective, plan_dir=plans)
        dataset = PretrainingDataset(corpus, data, seed=_SEED, global_batch_size=size)
        with dataset.batches(start_step=0) as batches:
            yield from itertools.islice(batches, -(-num_pairs // size))

    fitted = gather_examples(features, training())
    # Of whole batches, the pairs that every run is fitted to, whatever its batches are.
    probe = fit_probe(fitted.select(np.arange(len(fitted.labels)) < num_pairs))
    held_out = HeldOutDataset(
        corpus,
        max_seq_length=length,
        batch_size=size,
        max_pairs=run.evaluation_pairs,
        plan_dir=plans,
        sentence_objective=objective,
    )
    examples = gather_examples(features, held_out.batches())
    return float(probe.score(*examples)), len(examples.labels)
