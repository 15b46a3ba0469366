"""Ceilings: how fast a device copies, and multiplies matrices of any size and of a step's sizes."""

import functools
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from albert_jax.config import AlbertConfig
from experiments.benchmarks.report import rounded
from experiments.benchmarks.timing import Candidate, StepKind, Windows, repeat, time_candidates

PRODUCT, COPY = "product", "copy"
_WINDOWS = Windows(3, 0.1)
# Smaller sizes on a CPU, which has smaller caches and takes longer.
_SIDE = {"cpu": 1024}
_BYTES = {"cpu": 1 << 26}


def measure_largest(device: jax.Device, dtype: DTypeLike) -> list[dict[str, Any]]:
    """Return the rates of one large product, and of reading an array and writing another."""
    side = _SIDE.get(device.platform, 8192)
    numbers = _BYTES.get(device.platform, 1 << 30) // jnp.dtype(dtype).itemsize
    vector = jnp.ones(numbers, dtype)
    seconds = _seconds(jax.jit(lambda x: x + 1), vector)
    return [
        _measure_product("large", (side, side, side), dtype),
        {
            "kind": "ceiling",
            "operation": COPY,
            "shape": f"{vector.nbytes >> 20} MiB",
            "milliseconds": rounded(1e3 * seconds),
            "rate": rounded(2 * vector.nbytes / seconds / 1e12, 3),
            "unit": "TB/s",
        },
    ]


def measure_products(
    config: AlbertConfig, *, rows: int, length: int, predictions: int, dtype: DTypeLike
) -> list[dict[str, Any]]:
    """Return the rates of the products of a step, forward and backward, each alone."""
    return [
        _measure_product(name, shape, dtype)
        for name, shape in step_products(config, rows * length, rows * predictions)
    ]


def step_products(
    config: AlbertConfig, positions: int, predictions: int
) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """Yield the distinct products of a step, each as rows, columns and inner dimension."""
    hidden, wide = config.hidden_size, config.intermediate_size
    yield "attention's projections", (positions, hidden, hidden)
    yield "intermediate", (positions, wide, hidden)
    yield "output", (positions, hidden, wide)
    yield "gradient of a projection", (hidden, hidden, positions)
    yield "gradient of intermediate", (hidden, wide, positions)
    yield "logits", (predictions, config.vocab_size, config.embedding_size)


def largest_rate(rows: Sequence[Mapping[str, Any]], operation: str) -> float | None:
    """Return the ceiling that was measured, in FLOP/s or bytes a second; None if it was not."""
    rates = [
        row["rate"]
        for row in rows
        if row["kind"] == "ceiling" and (row["operation"] == COPY) == (operation == COPY)
    ]
    return 1e12 * max(rates) if rates else None


def _measure_product(name: str, shape: tuple[int, int, int], dtype: DTypeLike) -> dict[str, Any]:
    rows, columns, inner = shape
    key = jax.random.key(0)
    left = jax.random.normal(key, (rows, inner), dtype)
    right = jax.random.normal(key, (inner, columns), dtype)
    seconds = _seconds(jax.jit(jnp.matmul), left, right)
    return {
        "kind": "ceiling",
        "operation": f"{PRODUCT}, {name}",
        "shape": " x ".join(map(str, shape)),
        "milliseconds": rounded(1e3 * seconds),
        "rate": rounded(2 * rows * columns * inner / seconds / 1e12, 3),
        "unit": "TFLOP/s",
    }


def _seconds(function: Callable[..., jax.Array], *operands: jax.Array) -> float:
    """Return the median seconds of a call."""

    candidate = Candidate("", StepKind.FORWARD, repeat(functools.partial(function, *operands)))
    (samples,) = time_candidates([candidate], _WINDOWS)
    return statistics.median(samples)
