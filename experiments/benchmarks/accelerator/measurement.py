"""The measurement of an accelerator: its items in order of importance, from ceilings to rivals."""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax

from data_pipeline.config import Packing
from data_pipeline.errors import InputError
from experiments.benchmarks.accelerator.attention import (
    AttentionCandidate,
    AttentionRows,
    attention_candidates,
)
from experiments.benchmarks.accelerator.ceilings import measure_largest, measure_products
from experiments.benchmarks.accelerator.journal import REPORT_FILE, Journal, Row
from experiments.benchmarks.accelerator.kernels import profile_kernels
from experiments.benchmarks.accelerator.picture import draw
from experiments.benchmarks.accelerator.plan import (
    Item,
    NotMeasured,
    Plan,
    seconds_since_start,
)
from experiments.benchmarks.accelerator.recordings import Shape, find_recordings, take_rows
from experiments.benchmarks.accelerator.steps import (
    BASE_VARIANTS,
    DEFAULT,
    FLOAT8,
    Size,
    Variant,
    measure_size,
)
from experiments.benchmarks.report import environment
from experiments.benchmarks.step import device_name
from experiments.benchmarks.timing import Windows
from experiments.benchmarks.torch import TorchVariant

_CLOSING = 10.0  # seconds for the picture, or a twentieth of the time if that is less
# Seconds of an item on an H200, see experiments/LOG.md: the first step also starts libraries.
_FIRST, _STEP, _LARGE_STEP, _PROFILE = 45, 16, 25, 20
_ATTENTION, _RIVAL, _PRODUCTS = 5, 45, 8
_PACKINGS = (Packing.PACKED, Packing.UNPACKED)


class Accelerator:
    """The items of the measurement.

    Args:
        sizes: the models; the first one is also measured in parts.
        replay: the directory of `record_all`.
        windows: how long each is timed.

    Raises:
        InputError: the directory has no recordings, or one does not fit the models.
    """

    def __init__(self, sizes: Sequence[Size], replay: Path, windows: Windows) -> None:
        self._sizes, self._windows = sizes, windows
        self._paths = find_recordings(replay)
        self._lengths = sorted({shape.length for shape in self._paths}, reverse=True)
        narrow = min((size.config for size in sizes), key=lambda config: config.model.vocab_size)
        for shape, path in self._paths.items():
            length = take_rows(path, narrow, None)[0].data.max_seq_length
            if length != shape.length:
                raise InputError(f"--replay={replay}: {path.name} has rows of {length}")
        self._attention_rows: dict[Shape, AttentionRows] = {}

    def items(self, journal: Journal) -> Iterator[Item]:
        """Yield the items in order of importance, because a time limit drops the last ones.

        Transformers come before the large models, which would leave them too little memory: JAX
        keeps the memory that it once had.

        Args:
            journal: holds the ceilings by the time they are needed.
        """
        first, *others = self._sizes
        longest, *shorter = self._lengths
        packed, unpacked = Shape(longest, Packing.PACKED), Shape(longest, Packing.UNPACKED)
        device, dtype = jax.devices()[0], first.config.run.dtype
        yield Item("large product and copy", 6, partial(measure_largest, device, dtype))
        yield self._step(first, packed, seconds=_FIRST)
        yield self._step(first, unpacked)
        profile = partial(self._measure_profile, first, packed, journal)
        yield Item(f"profile: {first.name}, {packed}", _PROFILE, profile)
        yield self._rival(first, unpacked, TorchVariant.COMPILED_GATHERED)
        yield from (self._step(size, packed) for size in others[::-1])
        yield from self._attention(packed)
        if device.platform == "gpu":
            yield from (self._step(first, packed, variant) for variant in BASE_VARIANTS)
            wide = [size for size in self._sizes[::-1] if size.name in ("xlarge", "xxlarge")]
            yield from (self._step(size, packed, FLOAT8) for size in wide)
        short = [Shape(length, packing) for length in shorter for packing in _PACKINGS]
        yield from (self._step(first, shape) for shape in short)
        yield from (self._step(size, shape) for shape in [*short, unpacked] for size in others)
        products = partial(self._measure_products, first, packed)
        yield Item(f"products: {first.name}, {packed}", _PRODUCTS, products)
        yield self._rival(first, unpacked, TorchVariant.EAGER)
        for length in shorter:
            yield from self._attention(Shape(length, Packing.PACKED))

    def _step(
        self, size: Size, shape: Shape, variant: Variant = DEFAULT, *, seconds: float = _STEP
    ) -> Item:
        extra = "" if variant is DEFAULT else f", {variant.name}"
        measure = partial(self._measure_size, size, shape, variant=variant)
        seconds = seconds if size is self._sizes[0] else _LARGE_STEP
        return Item(f"step: {size.name}, {shape}{extra}", seconds, measure)

    def _rival(self, size: Size, shape: Shape, rival: TorchVariant) -> Item:
        name = f"beside transformers: {size.name}, {shape}, {rival.replace('_', ' ')}"
        return Item(name, _RIVAL, partial(self._measure_size, size, shape, rivals=[rival]))

    def _attention(self, shape: Shape) -> Iterator[Item]:
        for candidate in attention_candidates():
            measure = partial(self._measure_attention, candidate, shape)
            yield Item(f"attention: {candidate.name}, {shape}", _ATTENTION, measure)

    def _path(self, shape: Shape) -> Path:
        if shape not in self._paths:
            raise NotMeasured(f"there is no recording {shape.file_name}")
        return self._paths[shape]

    def _measure_size(self, size: Size, shape: Shape, **options: Any) -> list[Row]:
        return measure_size(size, shape, self._path(shape), self._windows, **options)

    def _measure_profile(self, size: Size, shape: Shape, journal: Journal) -> list[Row]:
        path = self._path(shape)
        return profile_kernels(size, shape, path, journal.directory, journal.rows)

    def _measure_attention(self, candidate: AttentionCandidate, shape: Shape) -> list[Row]:
        """Measure an attention on the rows of a shape, which all implementations share."""
        if shape not in self._attention_rows:
            size = self._sizes[0]
            taken = take_rows(self._path(shape), size.config, size.rows_of(shape))
            self._attention_rows = {shape: AttentionRows(*taken)}  # other rows are not needed again
        return [self._attention_rows[shape].measure(candidate, self._windows)]

    def _measure_products(self, size: Size, shape: Shape) -> list[Row]:
        config, _ = take_rows(self._path(shape), size.config, size.rows_of(shape))
        return measure_products(
            config.model,
            rows=config.global_batch_size,
            length=shape.length,
            predictions=config.data.max_predictions_per_seq,
            dtype=config.run.dtype,
        )


def measure_accelerator(
    sizes: Sequence[Size], replay: Path, output: Path, *, minutes: float, windows: Windows
) -> None:
    """Measure as much as fits into the time, the most important first.

    Each measurement is written as soon as it is made, so a killed process loses no finished one.
    Started again, the command measures what is missing.

    Args:
        sizes: the models; the first one is also measured in parts.
        replay: the directory of `record_all`.
        output: the directory of the results.
        minutes: minutes from the start of the process until it ends, compiling included.
        windows: how long each candidate is timed.

    Raises:
        InputError: there are no recordings, or the time or the directory cannot be used.
    """
    deadline = time.monotonic() - seconds_since_start() + 60 * minutes
    if not minutes > 0:
        raise InputError(f"--minutes must be more than 0, got {minutes:g}")
    accelerator = Accelerator(sizes, replay, windows)
    journal = Journal(output, environment(device_name()))
    items = list(accelerator.items(journal))
    plan = Plan(items, journal, deadline - min(_CLOSING, 3 * minutes))

    def finish() -> None:
        draw(journal.rows, output, device_name())
        print(f"{output / REPORT_FILE}: {len(journal.rows)} measurements", flush=True)

    timer = plan.end_process_at(deadline, finish)
    try:
        plan.run()
    finally:
        timer.cancel()
        finish()
