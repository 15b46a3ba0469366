"""Tiling of a batch for blocked attention: a block is some heads of a row, with queries in tiles.

A tile of global attention reads all keys of the row. A tile of local attention reads the keys that
its queries reach, from an array with a margin on both sides, or all keys if the row is short.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from albert_jax.layers import HeadVectors

MOST_SCORES = 2**18  # per tile: 1 MiB in float32
_FEWEST_QUERIES = 32  # per tile of local attention: fewer make matmuls too small
_NOWHERE = -1  # id of a key outside the row, which no query has


class Tiling(NamedTuple):
    """The sizes of blocks and tiles for rows of a given length."""

    length: int
    tiles: int  # of a row, along its queries
    queries: int  # of a tile
    keys: int  # that a tile reads
    heads: int  # of a block
    reach: int | None  # of local attention: farthest position on either side; None: global
    margin: int | None  # keys that a tile reads on either side of its queries; None: all of a row

    def near(self, tile: Array | int) -> Bool[Array, "queries keys"] | None:
        """Return True where a query of a tile reaches a key of the tile; None if all reach all."""
        if self.reach is None:
            return None
        queries = tile * self.queries + jnp.arange(self.queries)[:, None]
        keys = self.start(tile) - (self.margin or 0) + jnp.arange(self.keys)
        return jnp.abs(keys - queries) <= self.reach

    def start(self, tile: Array | int) -> Array | int:
        """Return where the keys of a tile begin, in the array with margins."""
        return 0 if self.margin is None else tile * self.queries

    def split_queries(
        self, x: HeadVectors
    ) -> Float[Array, "blocks tiles heads_of_block queries width"]:
        """Cut queries, or other vectors of each query, into the tiles of all blocks."""
        batch, _, heads, width = x.shape
        x = self._pad(x, 0, 0).reshape(batch, self.tiles, self.queries, -1, self.heads, width)
        x = x.transpose(0, 3, 1, 4, 2, 5)
        return x.reshape(batch * heads // self.heads, *x.shape[2:])

    def join_queries(
        self, x: Float[Array, "blocks tiles heads_of_block queries width"], batch: int
    ) -> HeadVectors:
        """Undo `split_queries`."""
        x = x.reshape(batch, -1, *x.shape[1:]).transpose(0, 2, 4, 1, 3, 5)
        return x.reshape(batch, self.tiles * self.queries, -1, x.shape[-1])[:, : self.length]

    def split_keys(self, x: HeadVectors) -> Float[Array, "blocks heads_of_block positions width"]:
        """Cut keys or values into blocks, with margins on both sides if there are any."""
        batch, _, heads, width = x.shape
        x = self._pad(x, self.margin, 0).swapaxes(1, 2)
        return x.reshape(batch * heads // self.heads, self.heads, -1, width)

    def join_keys(
        self, x: Float[Array, "blocks heads_of_block positions width"], batch: int
    ) -> HeadVectors:
        """Undo `split_keys`, dropping the margins."""
        margin = self.margin or 0
        x = x[:, :, margin : margin + self.length]
        return x.reshape(batch, -1, self.length, x.shape[-1]).swapaxes(1, 2)

    def split_ids(
        self, query_ids: Int[Array, "batch length"], key_ids: Int[Array, "batch length"], heads: int
    ) -> tuple[Int[Array, "blocks tiles queries"], Int[Array, "blocks positions"]]:
        """Cut the ids of queries and keys likewise, for rows with this number of heads."""
        queries = self._pad(query_ids, 0, 0).reshape(-1, self.tiles, self.queries)
        keys = self._pad(key_ids, self.margin, _NOWHERE)
        of_queries, of_keys = (
            jnp.repeat(ids, heads // self.heads, axis=0) for ids in (queries, keys)
        )
        return of_queries, of_keys

    def _pad(self, x: Array, margin: int | None, fill: int) -> Array:
        """Pad rows to whole tiles and by a margin on both sides; not at all if it is None."""
        if margin is None:
            return x
        behind = self.tiles * self.queries - self.length
        widths = [(0, 0), (margin, margin + behind), *[(0, 0)] * (x.ndim - 2)]
        return jnp.pad(x, widths, constant_values=fill) if margin + behind else x


def tile(heads: int, length: int, reach: int | None = None) -> Tiling:
    """Choose tiles whose scores fit a cache, with as many heads as a divisor of `heads` allows.

    Example: with 12 heads, rows of 256 have one tile per four heads, rows of 512 have one tile per
    head, and rows of 4096 have 64 tiles per head. With a reach of 64, a row of 4096 has 64 tiles of
    64 queries and 192 keys, each of all heads.
    """
    margin = reach
    queries = max(reach or 0, _FEWEST_QUERIES)
    if margin is None or queries + 2 * margin >= length:
        margin, tiles = None, -(-length // max(1, MOST_SCORES // length))
        queries, keys = -(-length // tiles), length
    else:
        tiles, keys = -(-length // queries), queries + 2 * margin
    fitting = [
        size
        for size in range(1, heads + 1)
        if heads % size == 0 and size * queries * keys <= MOST_SCORES
    ]
    return Tiling(length, tiles, queries, keys, max(fitting, default=1), reach, margin)
