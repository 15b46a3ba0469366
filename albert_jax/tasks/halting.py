"""Halting by entropy: a prediction is taken from the first layer that is sure of it.

Since layers share their weights, the head can read the output of any of them, without training for
it. The entropy of the head's distribution says how sure a layer is (Xin et al. 2020, "DeeBERT").
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Float32, Int

from albert_jax.layers import AnyArray
from albert_jax.training.losses import Metrics, Ratio


class Halting:
    """Predictions of masked tokens, each from the first layer whose entropy is below a threshold.

    If no layer is sure, the prediction is taken from the last. Layers are counted from 1: the input
    of the first layer is never used. The metric counts the layers that a prediction needs. A batch
    saves the others only if all of its tokens halt, since tokens attend to those that have halted.

    Args:
        entropies: thresholds in nats.
        labels: the masked tokens.
        weights: 0 for unused slots.
    """

    def __init__(
        self,
        entropies: Sequence[float],
        labels: Int[AnyArray, "batch predictions"],
        weights: Float32[AnyArray, "batch predictions"],
    ) -> None:
        self._entropies, self._labels, self._weights = entropies, labels, weights
        self._depth = 0
        self._running = [jnp.ones(labels.shape, bool) for _ in entropies]
        self._sums = {
            (name, number): jnp.zeros(())
            for name in ("layers", "masked_lm_loss", "masked_lm_accuracy")
            for number in range(len(entropies))
        }

    def add_layer(
        self, logits: Float[Array, "batch predictions vocabulary"], *, is_last: bool
    ) -> None:
        """Take the next layer's predictions where they are sure enough, or all if it is last."""
        self._depth += 1
        scores = jax.nn.log_softmax(logits)
        entropy = -(jnp.exp(scores) * scores).sum(-1)
        of_labels = jnp.take_along_axis(scores, self._labels[..., None], axis=-1)[..., 0]
        correct = of_labels >= scores.max(-1)
        for number, threshold in enumerate(self._entropies):
            running = self._running[number]
            halts = running if is_last else running & (entropy < threshold)
            self._running[number] = running & ~halts
            weights = halts * self._weights
            for name, values in (
                ("layers", jnp.full(entropy.shape, self._depth)),
                ("masked_lm_loss", -of_labels),
                ("masked_lm_accuracy", correct),
            ):
                self._sums[name, number] += (weights * values).sum()

    def metrics(self) -> Metrics:
        """Return `halting_layers/{entropy}`, and `halting_masked_lm_loss/` and `..._accuracy/`."""
        total = self._weights.sum()
        return {
            f"halting_{name}/{self._entropies[number]}": Ratio(value, total)
            for (name, number), value in self._sums.items()
        }
