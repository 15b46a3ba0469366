"""Inference on rows of any lengths: batched by length, compiled once for each shape."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import PyTree

from albert_jax.devices.mesh import make_mesh
from albert_jax.devices.sharding import ROWS, state_shardings
from data_pipeline.terminal import say
from experiments.tasks.raw_inputs import EncodedRow

_COARSE = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_FINE = (*range(8, 64, 8), *range(64, 128, 16), *range(128, 256, 32), *range(256, 513, 64))
_PADDING = {"p_mask": 1}  # 0 for all other fields, as in `EncodedExamples.take`

Function = Callable[[PyTree, dict[str, Any]], PyTree]


def default_tokens_per_batch() -> int:
    """Return rows times length of a batch: small on a CPU to pad little, large on accelerators."""
    return 1024 if jax.default_backend() == "cpu" else 16384


def padded_lengths() -> tuple[int, ...]:
    """Return the lengths to which rows are padded; each one requires a compilation.

    A compilation takes as long as a few batches on a CPU, and as thousands on an accelerator.
    """
    return _FINE if jax.default_backend() == "cpu" else _COARSE


class Inference:
    """A function of parameters and a batch, applied to rows of any lengths and any number.

    Rows of similar lengths share a batch, padded to one of a few lengths. Batches are formed from
    the longest rows down, and computed from the shortest rows up. The function is compiled when a
    length first occurs, and again for a batch with fewer rows. The next batch is computed while the
    outputs of the last one are used.

    Args:
        function: a function of parameters and a batch, which has arrays ``[rows, ..., length]``
            under the rows' names. It returns a tree of arrays whose first axis is the rows.
        params: the function's parameters.
        max_length: the most tokens of a row.
        tokens_per_batch: rows times length of a batch; None for the default.
        mesh: the devices over which rows are sharded; by default all.
        log: receives a message for each compilation.

    Example: rows with 5, 300 and 20 tokens form one batch if a batch has 1,024 tokens. If it has
    512, the first and the last form one of length 24. Outputs come in the order of lengths, each
    with its row's number.
    """

    def __init__(
        self,
        function: Function,
        params: PyTree,
        *,
        max_length: int,
        tokens_per_batch: int | None = None,
        mesh: Mesh | None = None,
        log: Callable[[str], None] = say,
    ) -> None:
        mesh = make_mesh() if mesh is None else mesh
        shardings = state_shardings(params, mesh)
        self._params = jax.device_put(params, shardings)
        self._rows = NamedSharding(mesh, ROWS)
        self._function = jax.jit(function, in_shardings=(shardings, self._rows))
        self._compiled: dict[tuple[int, ...], Any] = {}
        self._lengths = [*(n for n in padded_lengths() if n < max_length), max_length]
        self._tokens_per_batch = tokens_per_batch or default_tokens_per_batch()
        self._num_devices = mesh.size
        self._log = log

    def __call__(self, rows: Sequence[EncodedRow]) -> Iterator[tuple[int, PyTree]]:
        """Yield the outputs of each row with the row's number, short rows first.

        Outputs with a token axis have the length of the batch, and begin with the row's tokens.

        Raises:
            ValueError: a row is longer than `max_length`.
        """
        computed = ((numbers, self._run(batch)) for numbers, batch in self._batches(rows))
        waiting: list[tuple[Sequence[int], PyTree]] = []
        for ahead in itertools.chain(computed, [None]):
            for numbers, outputs in waiting:
                arrays = jax.device_get(outputs)
                for place, number in enumerate(numbers):
                    yield number, jax.tree.map(lambda x, place=place: x[place], arrays)
            waiting = [] if ahead is None else [ahead]

    def in_order(self, rows: Sequence[EncodedRow]) -> list[PyTree]:
        """Return the outputs of all rows, in order."""
        return put_in_order(self(rows), len(rows))

    def _batches(
        self, rows: Sequence[EncodedRow]
    ) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
        waiting = sorted(range(len(rows)), key=lambda number: _length(rows[number]))
        batches = []
        while waiting:
            length = self._padded_length(waiting[-1], rows)
            size = self._full_batch(length)
            batches.append((waiting[-size:], length, size))
            waiting = waiting[:-size]
        for numbers, length, size in reversed(batches):
            batch = [rows[number] for number in numbers]
            # The shortest rows may not fill their batch; copies of the first row do.
            batch += batch[:1] * (self._rounded_up(len(batch), size) - len(batch))
            yield numbers, _stack(batch, length)

    def _padded_length(self, number: int, rows: Sequence[EncodedRow]) -> int:
        length = _length(rows[number])
        for limit in self._lengths:
            if length <= limit:
                return limit
        raise ValueError(f"row {number} has {length} tokens, at most {self._lengths[-1]} fit")

    def _full_batch(self, length: int) -> int:
        """Return the rows of a full batch: equally many per device, a multiple of 8 if above 8."""
        each = max(1, self._tokens_per_batch // length // self._num_devices)
        return self._num_devices * (each - each % 8 if each > 8 else each)

    def _rounded_up(self, rows: int, full: int) -> int:
        """Round the rows of a smaller batch up to one of a few numbers, to compile less often."""
        each = -(-rows // self._num_devices)
        power = 1 << (each - 1).bit_length()
        three_quarters = power * 3 // 4
        rounded = three_quarters if three_quarters >= each else power
        return min(full, self._num_devices * rounded)

    def _run(self, batch: dict[str, np.ndarray]) -> PyTree:
        placed = jax.device_put(batch, self._rows)
        shape = next(iter(batch.values())).shape
        if shape not in self._compiled:
            started = time.perf_counter()
            self._compiled[shape] = self._function.lower(self._params, placed).compile()
            seconds = time.perf_counter() - started
            rows = f"{shape[0]} row{'s' if shape[0] > 1 else ''}"
            self._log(f"compiled for {rows} of {shape[-1]} tokens in {seconds:.1f} s")
        return self._compiled[shape](self._params, placed)


def put_in_order(numbered: Iterable[tuple[int, Any]], count: int) -> list[Any]:
    """Return the values numbered 0 to `count` - 1 in order, given in any order."""
    results = dict(numbered)
    return [results[number] for number in range(count)]


def _length(row: EncodedRow) -> int:
    return next(iter(row.values())).shape[-1]


def _stack(rows: Sequence[EncodedRow], length: int) -> dict[str, np.ndarray]:
    batch = {}
    for name, first in rows[0].items():
        shape = (len(rows), *first.shape[:-1], length)
        batch[name] = np.full(shape, _PADDING.get(name, 0), first.dtype)
        for place, row in enumerate(rows):
            batch[name][place, ..., : _length(row)] = row[name]
    return batch
