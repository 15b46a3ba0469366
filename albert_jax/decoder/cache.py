"""The cache of a decoder: keys and values of the tokens that it has read, and of the source.

Each layer has its own arrays: a step writes one position in place, and attention reads what it
needs without copying. With arrays stacked over layers, both would copy.

Beams of a source share its keys and values, and their own are stored side by side. A text that
another beam continues stays where it was written: `writers` says which beams wrote the tokens of a
text, and attention masks the others. Moving keys and values instead took longer than attending to
all of them.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Int

from albert_jax.decoder.layers import as_keys, as_values
from albert_jax.layers import HeadVectors

Arrays = tuple[tuple[Array, Array], ...]  # keys and values of each layer


@flax.struct.dataclass
class DecoderCache:
    """Keys and values, a pair of arrays for each layer.

    Rows of tokens are those of the beams of the first source, then of the second, ...

    Attributes:
        length: number of target tokens that were read so far.
        writers: for each text and position, the beam that has written its keys and values; from
            `length` on, the text's own beam.
        self_attention: of the target, keys ``[batch, heads, width, longest * beams]`` and values
            ``[batch, heads, longest * beams, width]``: those of all beams for the first position,
            then for the second, ...
        cross_attention: of the source, ``source`` in place of ``longest * beams``.
        source_mask: True for the real tokens of the source; None if all are.
    """

    length: Int[Array, ""]
    writers: Int[Array, "batch beams longest"]
    self_attention: Arrays
    cross_attention: Arrays
    source_mask: Bool[Array, "batch source"] | None

    def write(self, layer: int, key: HeadVectors, value: HeadVectors) -> tuple[Array, Array]:
        """Return keys and values of a layer with those of the next tokens of each row."""
        batch, beams, _ = self.writers.shape

        def by_source(new: HeadVectors) -> Array:
            _, length, heads, width = new.shape
            by_beam = new.reshape(batch, beams, length, heads, width)
            return by_beam.swapaxes(1, 2).reshape(batch, -1, heads, width)

        keys, values = self.self_attention[layer]
        write, place = jax.lax.dynamic_update_slice_in_dim, self.length * beams
        return (
            write(keys, as_keys(by_source(key)), place, axis=3),
            write(values, as_values(by_source(value)), place, axis=2),
        )

    def mask(self, length: int) -> Bool[Array, "batch 1 queries keys"]:
        """Return True where one of the next `length` tokens of each beam attends to a key.

        Example: with one beam, two tokens from position 1 on, and room for four:
        ``[[1, 1, 0, 0], [1, 1, 1, 0]]``.
        """
        batch, beams, longest = self.writers.shape
        causal = jnp.arange(longest) <= self.length + jnp.arange(length)[:, None]
        own = self.writers[:, :, None, :, None] == jnp.arange(beams)
        return (causal[:, :, None] & own).reshape(batch, 1, beams * length, longest * beams)

    def reorder(self, parents: Int[Array, "batch beams"]) -> "DecoderCache":
        """Give each beam the text of another one of the same source.

        Example: after ``parents=[[0, 0]]`` both beams have read what beam 0 had.
        """
        _, beams, longest = self.writers.shape
        taken = jnp.take_along_axis(self.writers, parents[:, :, None], axis=1)
        own = jnp.arange(beams)[:, None]
        writers = jnp.where(jnp.arange(longest) < self.length, taken, own)
        return dataclasses.replace(self, writers=writers)
