"""A command of several processes without a model: they join, meet at barriers, and end.

It prints a line at each of its stages, for tests to wait for.
"""

import time

import jax
from absl import flags
from jax.experimental import multihost_utils

from albert_jax.training.checkpoint import NonFiniteStateError
from data_pipeline.errors import InputError
from experiments.cli.command import run
from experiments.cli.exit_codes import ExitCode
from experiments.hosts import define_host_flags, on_all_hosts, this_member
from experiments.run.config import ExperimentConfig
from experiments.run.stopping import Preemption

FLAGS = flags.FLAGS
BARRIERS = {
    "collective": lambda name: multihost_utils.sync_global_devices(name),
    "service": lambda name: jax._src.distributed.global_state.client.wait_at_barrier(name, 10**7),
}


def main() -> ExitCode:
    number = FLAGS.process_id
    print("joined", flush=True)
    this_member().agree("facts", {"seed": FLAGS.fact})
    print("agreed", flush=True)
    barrier = BARRIERS[FLAGS.barrier]
    with Preemption() as preemption:
        for step in range(1, FLAGS.steps + 1):
            barrier(f"step {step}")
            if step == FLAGS.fails_at and number == FLAGS.fails_on:
                fail()
            if step == 1:
                print("stepping", flush=True)
            if preemption.reached(step):
                return ExitCode.PREEMPTED
            time.sleep(FLAGS.pause)
    print("done", flush=True)
    if number == FLAGS.late:
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


if __name__ == "__main__":
    flags.DEFINE_string("fact", "1", "what is compared")
    flags.DEFINE_string("barrier", "collective", "what the processes wait at")
    flags.DEFINE_integer("steps", 10, "barriers")
    flags.DEFINE_float("pause", 0.1, "seconds between two barriers")
    flags.DEFINE_integer("fails_on", -1, "the process that fails")
    flags.DEFINE_integer("fails_at", 2, "the barrier after which it fails")
    flags.DEFINE_string("failure", "input", "how it fails")
    flags.DEFINE_integer("late", -1, "the process that ends late")
    flags.DEFINE_float("late_seconds", 3, "how late")
    define_host_flags()
    run(main, ExperimentConfig, around=on_all_hosts)
