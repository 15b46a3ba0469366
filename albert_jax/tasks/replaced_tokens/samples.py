"""The discriminator's rows, with tokens sampled from the generator in place of the masked ones."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Float32, Int, Int32, Key

from albert_jax.batch import PretrainingBatch
from albert_jax.devices.fingerprint import fingerprint


class ReplacedRows(NamedTuple):
    """Rows with samples at the positions to predict."""

    input_ids: Int32[Array, "batch length"]
    is_replaced: Bool[Array, "batch length"]  # the sample is not the original token


def row_keys(seed: int, batch: PretrainingBatch) -> Key[Array, " batch"]:
    """Return a random key for each row, a function of the seed and of what the row holds.

    So a row has the same samples on any number of devices and in any micro-batch, in training and
    in evaluation. Its masks, and with them the key, differ in each epoch (but not with imported
    records).
    """
    prints = jax.vmap(fingerprint)(
        (
            batch.input_ids,
            batch.sequence_ids,
            batch.masked_lm_positions,
            batch.masked_lm_ids,
            batch.masked_lm_weights,
        )
    )
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(seed), prints)


def sample_tokens(
    keys: Key[Array, " batch"], logits: Float[Array, "batch predictions vocabulary"]
) -> Int32[Array, "batch predictions"]:
    """Sample a token from each slot's distribution; no gradient passes (ELECTRA §2).

    Args:
        keys: random keys of the rows.
        logits: the generator's logits.
    """
    samples = jax.vmap(jax.random.categorical)(keys, jax.lax.stop_gradient(logits))
    return samples.astype(jnp.int32)


def replace_tokens(
    batch: PretrainingBatch, samples: Int[Array, "batch predictions"]
) -> ReplacedRows:
    """Put samples at the positions to predict, whatever is there.

    A sample that happens to be the original token is not a replacement (ELECTRA §2).

    Example, with 4 for [MASK]: the row ``2 4 7 4 3``, whose original tokens at 1 and 3 are 5 and 6,
    with the samples 5 and 9 becomes ``2 5 7 9 3``, and 9 is the only replacement.
    """
    length = batch.input_ids.shape[1]
    # Unused slots are at position 0: nothing is put there.
    positions = jnp.where(batch.masked_lm_weights > 0, batch.masked_lm_positions, length)

    def put(row: Array, places: Array, tokens: Array) -> Array:
        return row.at[places].set(tokens, mode="drop")

    original = jax.vmap(put)(batch.input_ids, positions, batch.masked_lm_ids)
    replaced = jax.vmap(put)(batch.input_ids, positions, samples)
    return ReplacedRows(replaced, replaced != original)


def token_weights(batch: PretrainingBatch) -> Float32[Array, "batch length"]:
    """Return 1 for tokens of the text, 0 for padding, [CLS] and [SEP], which are never replaced.

    [CLS] is first in a pair, and [SEP] is last in each of its segments.

    Example: ``2 41 3 52 3 0``, which holds one pair, gives ``0 1 0 1 0 0``.
    """
    pairs, types = batch.sequence_ids, batch.token_type_ids
    changes = (pairs[:, 1:] != pairs[:, :-1]) | (types[:, 1:] != types[:, :-1])
    ends_segment = jnp.pad(changes, ((0, 0), (0, 1)), constant_values=True)
    is_text = (pairs > 0) & (batch.position_ids > 0) & ~ends_segment
    return is_text.astype(jnp.float32)
