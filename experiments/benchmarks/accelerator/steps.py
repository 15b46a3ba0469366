"""Training steps of the released sizes, with variants and compared with transformers."""

import dataclasses
import gc
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from albert_jax.devices.flops import mesh_peak_flops
from albert_jax.devices.mesh import make_mesh
from albert_jax.matmuls import Matmuls
from data_pipeline.errors import InputError
from data_pipeline.terminal import say
from experiments.benchmarks.accelerator.plan import NotMeasured, is_out_of_memory
from experiments.benchmarks.accelerator.recordings import Shape, take_rows
from experiments.benchmarks.step import step_candidates
from experiments.benchmarks.timing import (
    Candidate,
    StepKind,
    Windows,
    measurement_rows,
    time_candidates,
)
from experiments.benchmarks.torch import TorchVariant, import_torch, torch_candidates
from experiments.cli.config_dicts import from_config_dict
from experiments.run.config import ComputeDtype, ExperimentConfig

RELEASED = ("base", "large", "xlarge", "xxlarge")
# Positions of a batch: 128 rows of 512 for base; for the others, as many as fit with some room.
_POSITIONS = {"base": 1 << 16, "large": 1 << 15, "xlarge": 1 << 14, "xxlarge": 1 << 14}
_POSITIONS_ON_CPU = 1 << 10


class Size(NamedTuple):
    """A model to measure."""

    name: str
    config: ExperimentConfig
    positions: int  # of a batch

    def rows_of(self, shape: Shape) -> int:
        """Return the rows of a batch."""
        return max(1, self.positions // shape.length)


class Variant(NamedTuple):
    """Settings that differ from the code's defaults."""

    name: str = "default"
    run: Mapping[str, Any] = {}  # fields of `RunConfig`


DEFAULT = Variant()


def released_size(name: str) -> Size:
    """Return a released size, version 2, which has no dropout."""
    module = importlib.import_module(f"experiments.configs.albert_{name}_v2")
    config = from_config_dict(module.get_config(), ExperimentConfig)
    return make_size(name, config, _POSITIONS[name])


def choose_sizes(names: Sequence[str], given: ExperimentConfig | None = None) -> list[Size]:
    """Return released sizes; without names, all of them, or on a CPU only the smallest.

    Args:
        names: names of released sizes.
        given: a model to use in their place.

    Raises:
        InputError: there is no such size, or both are given.
    """
    if given is not None:
        if names:
            raise InputError("--config is a model of its own: leave --sizes out")
        return [make_size("given", given)]
    on_cpu = jax.default_backend() == "cpu"
    chosen = list(names) or list(RELEASED[:1] if on_cpu else RELEASED)
    for name in chosen:
        if name not in RELEASED:
            raise InputError(f"--sizes: {name!r} is none of {', '.join(RELEASED)}")
    if on_cpu:
        say("on a CPU: float32, and few rows")
    return [released_size(name) for name in dict.fromkeys(chosen)]


def make_size(name: str, config: ExperimentConfig, positions: int = _POSITIONS["base"]) -> Size:
    """Return a model with the compute type and the batch size for the devices that there are."""
    on_cpu = jax.default_backend() == "cpu"
    dtype = ComputeDtype.FLOAT32 if on_cpu else ComputeDtype.BFLOAT16
    run = dataclasses.replace(config.run, dtype=dtype)
    if on_cpu:
        positions = min(positions, _POSITIONS_ON_CPU)
    return Size(name, dataclasses.replace(config, run=run), positions)


# On a GPU, variants of base to measure besides its defaults, and the variant of the wide sizes.
BASE_VARIANTS = (
    Variant("no fused layers", {"fused_layers": False}),
    Variant("no slots", {"sequence_slots": 0}),
    Variant("two slots", {"sequence_slots": 2}),
)
FLOAT8 = Variant("float8", {"matmuls": Matmuls.FLOAT8})


def measure_size(
    size: Size,
    shape: Shape,
    path: Path,
    windows: Windows,
    variant: Variant = DEFAULT,
    rivals: Sequence[TorchVariant] = (),
) -> list[dict[str, Any]]:
    """Return the row of a training step, and those of transformers, which take turns with it.

    A batch that needs too much memory is halved until it fits; the rows say so.

    Args:
        size: the model.
        shape: the kind of rows.
        path: the recording of the rows.
        windows: how long each is timed.
        variant: settings to change.
        rivals: ways to run transformers.

    Raises:
        NotMeasured: one row needs too much memory, or torch or transformers is not installed or
            torch has no GPU.
    """
    if rivals:
        _check_torch()
    run = dataclasses.replace(size.config.run, **variant.run)
    given = dataclasses.replace(size.config, run=run)
    config, batches = take_rows(path, given, size.rows_of(shape))
    wanted = config.global_batch_size

    def attempt() -> list[dict[str, Any]]:
        ours = step_candidates(config, batches, [StepKind.TRAIN])
        theirs: list[Candidate] = []
        if rivals:
            import_torch()[0].cuda.reset_peak_memory_stats()
            theirs = torch_candidates(config, batches, rivals, [StepKind.TRAIN])
        candidates = [*ours, *theirs]
        samples = time_candidates(candidates, windows)
        peak = mesh_peak_flops(make_mesh())
        rows = measurement_rows(
            candidates, samples, config, batches, peak_flops=peak, num_alternatives=len(theirs)
        )
        return [
            {"execution": candidate.execution, **row}
            for candidate, row in zip(candidates, rows, strict=True)
        ]

    while (rows := _unless_out_of_memory(attempt)) is None:
        if config.global_batch_size == 1:
            raise NotMeasured("out of memory with one row")
        config, batches = take_rows(path, given, config.global_batch_size // 2)
    _free_memory()
    fewer = config.global_batch_size
    note = f"out of memory with {2 * fewer} rows, {wanted} wanted" if fewer < wanted else ""
    described = {"kind": "step", "size": size.name, "packing": str(shape.packing), "note": note}
    return [{**described, "variant": variant.name, **row} for row in rows]


def _unless_out_of_memory(
    attempt: Callable[[], list[dict[str, Any]]],
) -> list[dict[str, Any]] | None:
    """Return the result; if memory runs out, free what was allocated and return None."""
    try:
        return attempt()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    _free_memory()
    return None


def _free_memory() -> None:
    """Free the arrays of a finished step, also torch's, which torch would keep from JAX."""
    gc.collect()
    if "torch" in sys.modules:
        import_torch()[0].cuda.empty_cache()


def _check_torch() -> None:
    """Check that transformers can be measured on the device that our code runs on."""
    for name in ("torch", "transformers"):
        if importlib.util.find_spec(name) is None:
            raise NotMeasured(f"{name} is not installed")
    torch, _ = import_torch()
    if not torch.cuda.is_available():
        raise NotMeasured("torch finds no CUDA device")
