"""The attention mask: which keys a query attends to."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Int

from albert_jax.layers import AnyArray


class AttentionMask(NamedTuple):
    """The mask of rows with padding, of packed rows, or (all None) of rows without padding."""

    attention_mask: Int[AnyArray, "batch length"] | None = None  # 1 for a real token
    # For packed rows: 1, 2, ... for the sequences of a row in order, 0 for the padding after them.
    sequence_ids: Int[AnyArray, "batch length"] | None = None
    max_sequences: int | None = None  # upper bound on the sequences in a packed row
    sequence_slots: int | None = None  # for packed rows with cuDNN: see `Execution`
    reach: int | None = None  # farthest position on either side that a query attends to; None: any

    def dense(self, length: Any = None) -> Bool[Array, "#batch 1 #length length"] | None:
        """Return True where a query attends to a key; None if all attend to all.

        Args:
            length: length of the rows, a number or symbolic; needed only with a reach.
        """
        mask = None
        if self.sequence_ids is not None:
            mask = packed_mask(self.sequence_ids)
        elif self.attention_mask is not None:
            mask = padding_mask(self.attention_mask)
        if self.reach is None:
            return mask
        positions = jnp.arange(length)
        near = jnp.abs(positions[:, None] - positions) <= self.reach
        return near[None, None] if mask is None else mask & near

    def segment_ids(self, batch: int, length: int) -> Int[Array, "batch length"]:
        """Return the ids of tokens that attend to each other, 0 for padding.

        Without packing, padding is expected after the real tokens.
        """
        ids = self.attention_mask if self.sequence_ids is None else self.sequence_ids
        return jnp.ones((batch, length), jnp.int32) if ids is None else jnp.asarray(ids, jnp.int32)


def padding_mask(attention_mask: Int[AnyArray, "batch length"]) -> Bool[Array, "batch 1 1 length"]:
    """Return a mask that lets every position, including padding, attend to real ones (mask 1).

    Example: ``[1, 1, 0]`` gives each of the three queries ``[True, True, False]``.
    """
    return jnp.asarray(attention_mask, bool)[:, None, None, :]


def packed_mask(
    sequence_ids: Int[AnyArray, "batch length"],
) -> Bool[Array, "batch 1 length length"]:
    """Return a mask that lets every position attend to its own sequence.

    Padding (id 0) attends to padding, so that its results are finite.

    Example: ``[1, 1, 2, 0]`` lets the first two attend to each other, the others to themselves.
    """
    ids = jnp.asarray(sequence_ids)
    return (ids[:, :, None] == ids[:, None, :])[:, None]
