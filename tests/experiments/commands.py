"""Commands as processes of their own, and runs that are stopped in this one."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from compilation import XLA_FLAGS
from etils import epath

from albert_jax.training.checkpoint import restore_params
from experiments.run import training as training_run

ROOT = Path(__file__).parents[2]
COMMAND = ("-m", "experiments.pretrain")
RECORDED = (f"{ROOT}/tests/experiments/recorded_pretrain.py",)


def start(
    corpus: epath.PathLike,
    workdir: epath.PathLike,
    *flags: str,
    program: Sequence[str] = COMMAND,
    devices: int = 1,
    **environment: str,
) -> subprocess.Popen[str]:
    """Start a run on echoes."""
    xla_flags = f"--xla_force_host_platform_device_count={devices} {XLA_FLAGS}"
    return _start(
        *(*program, f"--config={ROOT}/tests/experiments/echo_config.py"),
        *(f"--config.data.corpus_dir={corpus}", f"--workdir={workdir}"),
        *flags,
        stdout=subprocess.DEVNULL,
        **({"XLA_FLAGS": xla_flags} | environment),
    )


def start_sweep(sweep: Path, directory: Path, *flags: str) -> subprocess.Popen[str]:
    """Start the sweep in a file."""
    command = ("-m", "experiments.sweep", f"--sweep={sweep}", f"--workdir={directory}")
    return _start(*command, *flags, stdout=subprocess.PIPE, XLA_FLAGS=XLA_FLAGS)


def _start(*arguments: str, stdout: int, **environment: str) -> subprocess.Popen[str]:
    variables = {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{ROOT}:{ROOT}/tests/experiments:{ROOT}/tests/data_pipeline",
    }
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | variables | environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def stopped_after(step: int) -> Iterator[None]:
    """Send this process SIGTERM when a run in it has taken so many steps."""
    train = training_run.train

    def train_and_signal(*args: Any, hooks: Any, **others: Any) -> Any:
        def advance(number: int) -> None:
            if number == step - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            note_step(number)

        note_step, hooks.advance = hooks.advance, advance
        return train(*args, hooks=hooks, **others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_run, "train", train_and_signal)
        yield


def assert_same_params(left: epath.PathLike, right: epath.PathLike, *, rtol: float = 0) -> None:
    """Compare the newest checkpoints of two workdirs, bit by bit unless told otherwise."""
    first, second = (
        restore_params(epath.Path(workdir) / "checkpoints") for workdir in (left, right)
    )
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol), first, second)
