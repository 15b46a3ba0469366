"""A command of several processes without a model: they join, meet at barriers, and end.

It prints a line at each of its stages, for tests to wait for.
"""

import resource
import signal
import time
from collections.abc import Callable

import jax
import numpy as np
from absl import flags
from jax.experimental import multihost_utils

from albert_jax.training.checkpoint import Checkpoints, NonFiniteStateError
from data_pipeline.errors import InputError
from experiments.cli.command import run
from experiments.cli.exit_codes import ExitCode
from experiments.hosts import Watchdog, agree, define_host_flags, on_all_hosts
from experiments.run.config import ExperimentConfig
from experiments.run.stopping import Preemption

FLAGS = flags.FLAGS
ALL = -3


def wait_at_service(name: str) -> None:
    jax._src.distributed.global_state.client.wait_at_barrier(name, 10**7)


# What JAX's computations wait in, and what Orbax's threads wait in.
BARRIERS: dict[str, Callable[[str], None]] = {
    "collective": multihost_utils.sync_global_devices,
    "service": wait_at_service,
}


def main() -> ExitCode:
    print("joined", flush=True)
    agree("facts", {"seed": FLAGS.fact})
    barrier = BARRIERS[FLAGS.barrier]
    with Preemption() as preemption, Watchdog(FLAGS.hang_seconds) as watchdog:
        for step in range(1, FLAGS.steps + 1):
            barrier(f"step {step}")
            if step == FLAGS.fails_at and FLAGS.failure == "save":
                save()
            elif step == FLAGS.fails_at and FLAGS.fails_on in (FLAGS.process_id, ALL):
                fail()
            print(f"step {step}", flush=True)
            watchdog.advance()
            if preemption.reached():
                return ExitCode.PREEMPTED
            time.sleep(FLAGS.pause)
    print("done", flush=True)
    if FLAGS.process_id == FLAGS.late:
        time.sleep(FLAGS.late_seconds)
    return ExitCode.DONE


def fail() -> None:
    match FLAGS.failure:
        case "input":
            raise InputError("a mistake")
        case "non_finite":
            raise NonFiniteStateError("step 2 is not finite")
        case "bug":
            raise ZeroDivisionError("a bug")
        case "loader":
            time.sleep(10**6)
        case "other barrier":
            wait_at_service("where nobody else comes")


def save() -> None:
    """Save a state of all processes, one of which can write small files alone."""
    if FLAGS.process_id == FLAGS.fails_on:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    devices = jax.sharding.Mesh(jax.devices(), "data")
    sharding = jax.sharding.NamedSharding(devices, jax.sharding.PartitionSpec("data"))
    own = np.random.default_rng(FLAGS.process_id).standard_normal(100_000)
    state = {"weights": jax.make_array_from_process_local_data(sharding, own)}
    with Checkpoints(FLAGS.directory, keep=1) as checkpoints:
        checkpoints.save(1, state, finite=True)
        checkpoints.wait_until_finished()


if __name__ == "__main__":
    flags.DEFINE_string("fact", "1", "what is compared")
    flags.DEFINE_string("barrier", "collective", "what the processes wait at")
    flags.DEFINE_integer("steps", 10**6, "barriers")
    flags.DEFINE_float("pause", 0.05, "seconds between two barriers")
    flags.DEFINE_float("hang_seconds", None, "as --config.run.hang_seconds")
    flags.DEFINE_integer("fails_on", -1, f"the process that fails; {ALL}: all")
    flags.DEFINE_integer("fails_at", 3, "the barrier after which it fails")
    flags.DEFINE_string("failure", "input", "how it fails")
    flags.DEFINE_string("directory", None, "where checkpoints are saved")
    flags.DEFINE_integer("late", -1, "the process that ends late")
    flags.DEFINE_float("late_seconds", 3, "how late")
    define_host_flags()
    print("started", flush=True)
    run(main, ExperimentConfig, around=on_all_hosts)
