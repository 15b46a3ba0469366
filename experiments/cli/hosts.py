"""Several hosts: joining the processes of a run, and ending them together."""

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import jax
from absl import flags

from data_pipeline.errors import InputError

flags.disclaim_key_flags()  # flags that are defined here belong to the calling command

# A process without a heartbeat for this long is dead, and so is the run.
HEARTBEAT_TIMEOUT_SECONDS = 30
# Time for the others to leave once one has left.
SHUTDOWN_TIMEOUT_SECONDS = 20

_HOST_FLAGS = ("coordinator_address", "num_processes", "process_id")


class LostProcessError(RuntimeError):
    """Another process of the run, or the connection to it, is gone."""


def define_host_flags() -> None:
    """Define the flags that join processes without a launcher."""
    flags.DEFINE_string("coordinator_address", None, "host:port of process 0, for several hosts")
    flags.DEFINE_integer("num_processes", None, "processes of the run", lower_bound=1)
    flags.DEFINE_integer("process_id", None, "number of this process, from 0", lower_bound=0)


@contextlib.contextmanager
def joined_hosts() -> Iterator[None]:
    """Join this process with the others of its run, if there are any, inside the context.

    They are named by flags, or else by SLURM, Open MPI, a TPU slice or GKE.

    Raises:
        InputError: the flags do not fit together, or the others cannot be reached.
        LostProcessError: one of the others was lost on the way.
    """
    if not _host_flags_given() and not _has_launcher():
        yield
        return
    try:
        jax.distributed.initialize(
            coordinator_address=flags.FLAGS.coordinator_address,
            num_processes=flags.FLAGS.num_processes,
            process_id=flags.FLAGS.process_id,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_SECONDS,
            shutdown_timeout_seconds=SHUTDOWN_TIMEOUT_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(f"the processes of this run do not find each other: {error}") from error
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        reason = str(error).strip().partition("\n")[0]
        raise LostProcessError(
            f"process {jax.process_index()} lost another one of {jax.process_count()} ({reason}); "
            "restart all of them: the run resumes from its last checkpoint"
        ) from error
    jax.distributed.shutdown()


def _host_flags_given() -> bool:
    """Return True if the flags name the processes; either all of them do or none."""
    missing = [f"--{name}" for name in _HOST_FLAGS if flags.FLAGS[name].value is None]
    if 0 < len(missing) < len(_HOST_FLAGS):
        needed = ", ".join(f"--{name}" for name in _HOST_FLAGS)
        raise InputError(f"several hosts need all of {needed}; missing: {', '.join(missing)}")
    number, count = flags.FLAGS.process_id, flags.FLAGS.num_processes
    if not missing and number >= count:
        raise InputError(f"--process_id must be from 0 to {count - 1}, got {number}")
    return not missing


def _has_launcher() -> bool:
    """Return True if a launcher that JAX knows has started this process among others."""
    environment = os.environ
    in_slurm_step = "SLURM_STEP_NODELIST" in environment
    return (
        (in_slurm_step and int(environment.get("SLURM_NTASKS", 1)) > 1)
        or int(environment.get("OMPI_COMM_WORLD_SIZE", 1)) > 1
        or _on_tpu()
    )


def _on_tpu() -> bool:
    """Return True on a TPU machine, which itself knows the others; GKE lists its workers."""
    if importlib.util.find_spec("libtpu") is None:
        return False
    devices = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")]
    return "TPU_WORKER_HOSTNAMES" in os.environ or bool(devices)
