"""The cache of a decoder: keys and values of the tokens that it has read, and of the source.

Of each layer it has an array of its own, heads before positions: a step writes one position in
place, and attention reads what it needs as it lies in memory. Stacked over layers, both would copy.
Rows of beams share the keys and values of their source.
"""

import dataclasses
from typing import cast

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Int

CHUNK = 16  # positions that beams reorder at once; a cache has a multiple of it

Arrays = tuple[tuple[Array, Array], ...]  # keys and values of each layer


@flax.struct.dataclass
class DecoderCache:
    """Keys and values, a pair of arrays for each layer.

    Attributes:
        length: tokens of the target that were read so far.
        self_attention: of the target ``[rows, heads, longest, width]``; what lies at and behind
            `length` means nothing.
        cross_attention: of the source ``[batch, heads, source, width]``; rows are a multiple of
            batch, those of one source together.
        source_mask: True for the real tokens of the source; None if all are.
    """

    length: Int[Array, ""]
    self_attention: Arrays
    cross_attention: Arrays
    source_mask: Bool[Array, "batch source"] | None

    def reorder(self, parents: Int[Array, " rows"]) -> "DecoderCache":
        """Give each row the target of another one of the same source.

        Only what is filled is copied, chunk after chunk.

        Example: after ``parents=[0, 0]`` both rows have read what row 0 had.
        """

        def reorder_chunk(chunk: Array, arrays: Arrays) -> Arrays:
            def one(array: Array) -> Array:
                part = jax.lax.dynamic_slice_in_dim(array, chunk * CHUNK, CHUNK, axis=2)
                moved = jnp.take(part, parents, axis=0, mode="clip")
                return jax.lax.dynamic_update_slice_in_dim(array, moved, chunk * CHUNK, axis=2)

            return cast(Arrays, jax.tree.map(one, arrays))

        chunks = (self.length + CHUNK - 1) // CHUNK
        arrays = jax.lax.fori_loop(0, chunks, reorder_chunk, self.self_attention)
        return dataclasses.replace(self, self_attention=arrays)


def padded_length(length: int) -> int:
    """Return the positions of a cache for a target: a multiple of `CHUNK`."""
    return -(-length // CHUNK) * CHUNK
