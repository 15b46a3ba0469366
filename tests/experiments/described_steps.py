"""Training steps compiled for a GPU that is described, not present, and what their kernels move.

    JAX_PLATFORMS=cpu PYTHONPATH=.venv/cuda:. \\
        python tests/experiments/described_steps.py --layers=12 --slots=2 --fused

In the root of a checkout, after `make test-cuda` has put the compiler into `.venv/cuda`. It prints
the kernels of base's step by kind, its bytes and its memory, and a table of the kernels that are
neither matmuls nor attention. No time is measured.
"""

import argparse
import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from compiled_program import (
    Kernel,
    bytes_between_matmuls,
    count_kinds,
    parse_kernels,
    passes_table,
)

from albert_jax import AlbertConfig, AlbertForPreTraining
from albert_jax.attention.dispatch import Attention
from albert_jax.batch import PretrainingBatch
from albert_jax.devices.described import UNOPTIMIZED_CODE, described_devices, described_gpus
from albert_jax.devices.memory import memory_of
from albert_jax.devices.mesh import make_mesh
from albert_jax.encoder import Execution, Remat
from albert_jax.matmuls import Matmuls
from albert_jax.tasks.pretraining import pretraining_objective
from albert_jax.training.config import OptimizerConfig
from albert_jax.training.optimizer import make_optimizer
from albert_jax.training.parallel import compile_train_step
from albert_jax.training.train_step import create_train_state
from experiments.run.compiler_options import COMPILER_OPTIONS, FLOAT8_OPTIONS

ROWS, LENGTH, PREDICTIONS, PAIRS = 128, 512, 77, 16


class DescribedStep(NamedTuple):
    """A compiled step: its text, its kernels, and the bytes that it needs on the device."""

    program: str
    kernels: list[Kernel]
    memory: int


@functools.cache
def describe_step(
    layers: int,
    *,
    slots: int | None,
    fused: bool,
    matmuls: Matmuls = Matmuls.SAME,
    remat: Remat = Remat.NONE,
) -> DescribedStep:
    """Compile the step of ALBERT-base on packed rows for an H200, all layers as one.

    Args:
        layers: number of layers.
        slots: see `Execution.sequence_slots`.
        fused: see `Execution.fused`.
        matmuls: see `Execution.matmuls`.
        remat: see `Execution.remat`.
    """
    (device,) = described_gpus("NVIDIA H200")
    config = dataclasses.replace(AlbertConfig.from_name("base_v2"), num_hidden_layers=layers)
    execution = Execution(
        remat,
        attention=Attention.CUDNN,
        unroll=layers,
        sequence_slots=slots,
        fused=fused,
        matmuls=matmuls,
    )
    options = {**COMPILER_OPTIONS["gpu"], **UNOPTIMIZED_CODE}
    if matmuls is Matmuls.FLOAT8:
        options |= FLOAT8_OPTIONS["gpu"]
    model = AlbertForPreTraining(config, dtype=jnp.bfloat16, execution=execution)
    optimizer = make_optimizer(
        OptimizerConfig(learning_rate=0.00176, num_train_steps=1000, num_warmup_steps=10),
        global_batch_size=ROWS,
    )
    objective = pretraining_objective(model)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(lambda k: create_train_state(model.initialize(k), optimizer), key)
    step = compile_train_step(
        objective.loss_fn,
        optimizer,
        state,
        make_mesh(devices=[device]),
        weight_fn=objective.weight_fn,
        compiler_options=options,
    )
    with described_devices(device):
        compiled = step.lower(state, batch_shapes(), key).compile()
    memory = memory_of(compiled)
    assert memory is not None
    program = compiled.as_text()
    return DescribedStep(program, parse_kernels(program), memory)


def batch_shapes() -> PretrainingBatch:
    """Return the shapes of a batch of packed rows."""
    return PretrainingBatch.shapes(batch=ROWS, length=LENGTH, predictions=PREDICTIONS, pairs=PAIRS)


def main() -> None:
    """Print what the step does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--slots", type=int, help="room a row, else that of any row")
    parser.add_argument("--fused", action="store_true")
    parser.add_argument("--matmuls", type=Matmuls, choices=list(Matmuls), default=Matmuls.SAME)
    options = parser.parse_args()
    step = describe_step(
        options.layers, slots=options.slots, fused=options.fused, matmuls=options.matmuls
    )
    kinds = ", ".join(f"{number} {kind}" for kind, number in count_kinds(step.kernels).items())
    between = bytes_between_matmuls(step.kernels)
    print(f"kernels: {kinds}\nbetween matmuls: {between / 1e9:.2f} GB")
    print(f"memory: {step.memory / 2**30:.2f} GiB\n\n{passes_table(step.kernels)}")


if __name__ == "__main__":
    main()
