"""Position encodings: how the model knows where a token is.

To add one, write a subclass of `PositionEncoder`, and add a member to
`albert_jax.config.PositionEncoding` and a line to `ENCODERS`.
"""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from albert_jax.config import ROTARY_BASE, AlbertConfig, PositionEncoding
from albert_jax.layers import AnyArray, HeadVectors, at_least_float32, embedding_table, initializer


class PositionBias:
    """The contribution of the distance between a query and a key inside attention."""

    def scores(self, query: HeadVectors) -> Float[Array, "batch heads length length"]:
        """Compute what is added to query times key, before that is scaled."""
        raise NotImplementedError

    def context(
        self, probabilities: Float[Array, "batch heads length length"]
    ) -> HeadVectors | float:
        """Compute what is added to the weighted sum of values."""
        return 0.0


@dataclasses.dataclass(frozen=True)
class PositionEncoder:
    """No position encoding (`none`), and the interface of the others, which override a part of it.

    Attributes:
        config: the model's sizes.
    """

    config: AlbertConfig

    def embed(
        self,
        embedded: Float[Array, "batch length embedding"],
        position_ids: Int[AnyArray, "#batch length"],
    ) -> Float[Array, "batch length embedding"]:
        """Add to the embeddings of tokens.

        This is called inside `AlbertEmbeddings`: a Flax module that is built here is its child,
        stored under its name.
        """
        return embedded

    def rotate(self, x: HeadVectors, *, local: bool = False) -> HeadVectors:
        """Transform the queries or the keys of a layer.

        Args:
            x: queries, or keys.
            local: True if the attention of the layer has a window.
        """
        return x

    def bias(self, encoder: nn.Module, dtype: DTypeLike) -> PositionBias | None:
        """Return what attention adds, the same in all layers; None for nothing.

        Args:
            encoder: the module in which parameters are stored, by ``encoder.param``.
            dtype: the compute type.
        """
        return None

    def flops(self, pairs: int) -> int:
        """Count the forward operations of matrix products that `bias` adds to a row, per layer.

        Args:
            pairs: number of pairs of a query and a key that it attends to, in a row.
        """
        return 0

    @property
    def has_bias(self) -> bool:
        """True if attention must support a `PositionBias`."""
        return type(self).bias is not PositionEncoder.bias

    @property
    def rotates(self) -> bool:
        """True if queries and keys depend on their positions."""
        return type(self).rotate is not PositionEncoder.rotate


class AbsolutePositions(PositionEncoder):
    """A learned vector for each position, added to the token's (ALBERT §3.1)."""

    def embed(
        self,
        embedded: Float[Array, "batch length embedding"],
        position_ids: Int[AnyArray, "#batch length"],
    ) -> Float[Array, "batch length embedding"]:
        rows = self.config.max_position_embeddings
        table = embedding_table(self.config, rows, embedded.dtype, "position_embeddings")
        return embedded + table(position_ids)


class RotaryPositions(PositionEncoder):
    """Queries and keys rotated by angles that grow along the row (Su et al. 2021).

    Long rows need a large base, whose slowest angles distinguish long distances. A window has no
    long distances, so local attention keeps the original base, as in ModernBERT (Warner et al.
    2024).
    """

    def rotate(self, x: HeadVectors, *, local: bool = False) -> HeadVectors:
        """Rotate each pair of entries of the vector at position t by t times the pair's angle.

        Pair i is entries i and width / 2 + i; its angle is base^(-2 i / width). The product of a
        rotated query and a rotated key depends only on their distance.

        Example: with width 2, ``[1, 0]`` at position 3 becomes ``[cos 3, sin 3]``.
        """
        half = x.shape[-1] // 2
        base = ROTARY_BASE if local else float(self.config.rotary_base)
        angles = jnp.arange(x.shape[1])[:, None] * base ** -(jnp.arange(half) / half)
        cos, sin = jnp.cos(angles)[:, None, :], jnp.sin(angles)[:, None, :]
        first, second = jnp.split(x.astype(at_least_float32(x.dtype)), 2, axis=-1)
        rotated = [first * cos - second * sin, second * cos + first * sin]
        return jnp.concatenate(rotated, axis=-1).astype(x.dtype)


class RelativePositions(PositionEncoder):
    """Learned keys and values for each distance, shared by heads and layers (Shaw et al. 2018)."""

    def bias(self, encoder: nn.Module, dtype: DTypeLike) -> "RelativeBias":
        config = self.config
        width = config.hidden_size // config.num_attention_heads
        shape = (2 * config.max_relative_distance + 1, width)
        keys, values = (
            encoder.param(f"relative_{name}", initializer(config), shape).astype(dtype)
            for name in ("keys", "values")
        )
        return RelativeBias(keys, values)

    def flops(self, pairs: int) -> int:
        return 4 * pairs * self.config.hidden_size


@dataclasses.dataclass(frozen=True)
class RelativeBias(PositionBias):
    """A key and a value for each distance from -k to k; farther ones count as k (Shaw et al. 2018).

    Expanded by query and key, each takes length² · width numbers, whatever the batch.

    Example: with k = 1, the query at 5 uses row 0 of the table for keys 0 to 4, row 1 for 5, and
    row 2 for 6 and beyond.
    """

    keys: Float[Array, "distances width"]
    values: Float[Array, "distances width"]

    def scores(self, query: HeadVectors) -> Float[Array, "batch heads length length"]:
        keys = _by_distance(self.keys, query.shape[1])
        dtype = at_least_float32(query.dtype)
        return jnp.einsum("bqhd,qkd->bhqk", query, keys, preferred_element_type=dtype)

    def context(self, probabilities: Float[Array, "batch heads length length"]) -> HeadVectors:
        values = _by_distance(self.values, probabilities.shape[-1])
        return jnp.einsum("bhqk,qkd->bqhd", probabilities, values)


def _by_distance(
    table: Float[Array, "distances width"], length: int
) -> Float[Array, "length length width"]:
    """Return the table's row for each query and key of a row of this length."""
    limit = table.shape[0] // 2
    positions = jnp.arange(length)
    return table[jnp.clip(positions[None, :] - positions[:, None], -limit, limit) + limit]


ENCODERS: dict[PositionEncoding, type[PositionEncoder]] = {
    PositionEncoding.ABSOLUTE: AbsolutePositions,
    PositionEncoding.RELATIVE_LOCAL: RelativePositions,
    PositionEncoding.ROTARY: RotaryPositions,
    PositionEncoding.NONE: PositionEncoder,
}


def position_encoder(config: AlbertConfig) -> PositionEncoder:
    """Return the encoder of a configuration."""
    return ENCODERS[config.position_encoding](config)
