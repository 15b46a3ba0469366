"""The place of a process in its run: which one of how many, and where the first one is."""

import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags
from jax._src.clusters import ClusterEnv  # the detection of `jax.distributed.initialize`

from data_pipeline.errors import InputError

flags.disclaim_key_flags()  # flags that are defined here belong to the calling command

DEFAULT_JOIN_SECONDS = 300

_HOST_FLAGS = ("coordinator_address", "num_processes", "process_id")


class Place(NamedTuple):
    """The place of a process among those of its run."""

    process: int  # from 0
    num_processes: int
    host: str  # of process 0
    port: int
    local_device_ids: Sequence[int] | None  # the devices that the launcher gives to this process
    join_seconds: float  # time for all processes to join


def define_host_flags() -> None:
    """Define the flags that join processes without a launcher."""
    flags.DEFINE_string("coordinator_address", None, "host:port of process 0, for several hosts")
    flags.DEFINE_integer("num_processes", None, "processes of the run", lower_bound=1)
    flags.DEFINE_integer("process_id", None, "number of this process, from 0", lower_bound=0)
    flags.DEFINE_float(
        "join_seconds",
        DEFAULT_JOIN_SECONDS,
        "how long the processes of a run wait for each other at its start",
        lower_bound=1,
    )


def find_place() -> Place | None:
    """Return the place of this process, or None if it is alone.

    Flags give it, or else SLURM, Open MPI, a TPU slice or GKE. If a launcher starts several
    processes on a host, each has one of its devices; if it starts one, that one has all of them.

    Raises:
        InputError: the flags do not fit together, or the launcher says too little.
    """
    has_flags, has_launcher = _host_flags_given(), _has_launcher()
    if not has_flags and not has_launcher:
        return None
    address, count, process = (flags.FLAGS[name].value for name in _HOST_FLAGS)
    seconds: float = flags.FLAGS.join_seconds
    devices: Sequence[int] | None = None
    if has_launcher:  # even if there are flags: only the launcher knows the devices
        try:
            address, count, process, devices = ClusterEnv.auto_detect_unset_distributed_params(
                address, count, process, None, None, int(seconds)
            )
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"the launcher does not say where the processes are: {error}"
            ) from error
    if _alone_on_host():
        devices = None  # all of them; JAX's detection gives it only the first one
    if address is None or count is None or process is None:
        needed = ", ".join(f"--{name}" for name in _HOST_FLAGS)
        raise InputError(f"the launcher does not say where the processes are: give {needed}")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"--coordinator_address must be HOST:PORT, got {address!r}")
    return Place(process, count, host.strip("[]"), int(port), devices, seconds)


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


def _alone_on_host() -> bool:
    """Return True if the launcher has started one process on each host."""
    tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")  # such as 1(x4), or 8(x3),4
    one_each = re.fullmatch(r"1(\(x\d+\))?", tasks) is not None
    return one_each or os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1"


def _on_tpu() -> bool:
    """Return True on a TPU machine, which knows the others itself, or on GKE, which lists them."""
    if importlib.util.find_spec("libtpu") is None:
        return False
    devices = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")]
    return "TPU_WORKER_HOSTNAMES" in os.environ or bool(devices)
