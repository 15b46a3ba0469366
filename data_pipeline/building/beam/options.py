"""The engine that builds a corpus, and the options of Apache Beam."""

import dataclasses
import importlib
import logging
import shlex
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from albert_jax.settings import check_settings, setting
from data_pipeline.errors import InputError

EXTRA = "pip install 'albert-jax[beam]'"

# Runs in the command's process and in processes that it starts. The runner that Beam would choose
# by default here, Prism, is a separate program, and its side inputs have had bugs.
LOCAL_RUNNER = "FnApiRunner"
_WORKER = "data_pipeline.building.beam.worker"


class Engine(StrEnum):
    """What builds a corpus: processes of this machine, or Apache Beam jobs."""

    LOCAL = "local"
    BEAM = "beam"


@dataclasses.dataclass(frozen=True)
class EngineConfig:
    """The engine of a build. The corpus does not depend on it.

    Raises:
        FieldError: a value is not allowed.
    """

    engine: Engine = setting(
        Engine.LOCAL,
        "local: processes of this machine. beam: jobs of Apache Beam, on many machines; needs "
        f"{EXTRA}.",
    )
    beam_runner: str = setting(
        LOCAL_RUNNER,
        "The runner of Beam, such as DataflowRunner, FlinkRunner or SparkRunner; by default the "
        "processes of this machine, --num_processes of them.",
    )
    beam_options: tuple[str, ...] = setting(
        (),
        "An option of Beam or its runner, such as --beam_options=--region=europe-west1. May be "
        "repeated.",
    )

    def __post_init__(self) -> None:
        check_settings(self)

    def make_pipelines(self, num_processes: int) -> Callable[[], Any]:
        """Return a function that makes an empty pipeline with the runner and its options.

        Args:
            num_processes: the number of processes of the local runner.

        Raises:
            InputError: Beam is not installed, or an option does not start with `--`.
        """
        require_beam()
        import apache_beam
        from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

        if stray := [option for option in self.beam_options if not option.startswith("--")]:
            raise InputError(
                f"--beam_options={stray[0]}: an option of Beam is written --name=value, as in "
                "--beam_options=--region=europe-west1"
            )
        options = PipelineOptions(list(self.beam_options))
        if self.beam_runner != LOCAL_RUNNER:
            options.view_as(StandardOptions).runner = self.beam_runner
            return lambda: apache_beam.Pipeline(options=options)
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)  # exceptions carry the errors
        return lambda: apache_beam.Pipeline(_local_runner(num_processes), options)


def _local_runner(num_processes: int) -> Any:
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import (
        EmbeddedPythonEnvironment,
        SubprocessSDKEnvironment,
    )

    if num_processes == 1:
        return FnApiRunner(EmbeddedPythonEnvironment.default())
    command = f"{shlex.quote(sys.executable)} -m {_WORKER}"
    runner = FnApiRunner(SubprocessSDKEnvironment.from_command_string(command))
    runner._num_workers = num_processes
    return runner


def require_beam() -> None:
    """Check that Apache Beam is installed.

    Raises:
        InputError: it is not installed.
    """
    try:
        logging.disable(logging.WARNING)  # about missing clients of Google services
        importlib.import_module("apache_beam")
    except ImportError as error:
        raise InputError(f"--engine=beam needs Apache Beam: {EXTRA} ({error})") from None
    finally:
        logging.disable(logging.NOTSET)
