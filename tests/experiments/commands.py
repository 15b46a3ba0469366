"""Starting the pre-training command as a process of its own."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from compilation import XLA_FLAGS
from etils import epath

from albert_jax.training.checkpoint import restore_params

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
    return subprocess.Popen(
        [
            *(sys.executable, *program, f"--config={ROOT}/tests/experiments/echo_config.py"),
            *(f"--config.data.corpus_dir={corpus}", f"--workdir={workdir}"),
            *flags,
        ],
        cwd=ROOT,
        env=os.environ
        | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": xla_flags,
            "PYTHONPATH": f"{ROOT}:{ROOT}/tests/experiments:{ROOT}/tests/data_pipeline",
        }
        | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def assert_same_params(left: epath.PathLike, right: epath.PathLike, *, rtol: float = 0) -> None:
    """Compares the newest checkpoints of two workdirs, bit by bit unless told otherwise."""
    first, second = (
        restore_params(epath.Path(workdir) / "checkpoints") for workdir in (left, right)
    )
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol), first, second)
