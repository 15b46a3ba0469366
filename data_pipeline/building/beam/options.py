"""Choice of the engine that builds a corpus, and the options of Apache Beam."""

import dataclasses
import importlib
from enum import StrEnum
from typing import Any

from albert_jax.settings import check_settings, setting
from data_pipeline.errors import InputError

EXTRA = "pip install 'albert-jax[beam]'"

# In the process of the command and processes that it starts. The runner that Beam itself would
# choose here, Prism, is a program of its own, whose side inputs have had faults.
LOCAL_RUNNER = "FnApiRunner"


class Engine(StrEnum):
    """What builds a corpus: this machine's processes, or jobs of Apache Beam."""

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

    def make_options(self, num_processes: int) -> Any:
        """Return the `PipelineOptions` of all jobs.

        Raises:
            InputError: Beam is not installed, or knows no such runner or option.
        """
        require_beam()
        from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

        given = [option for option in self.beam_options if option]
        if stray := [option for option in given if not option.startswith("--")]:
            raise InputError(
                f"--beam_options={stray[0]}: an option of Beam is written --name=value, as in "
                "--beam_options=--region=europe-west1"
            )
        if self.beam_runner == LOCAL_RUNNER:
            mode = "in_memory" if num_processes == 1 else "multi_processing"
            local = [f"--direct_num_workers={num_processes}", f"--direct_running_mode={mode}"]
            given = [*local, *given]
        options = PipelineOptions(given)
        options.view_as(StandardOptions).runner = self.beam_runner
        return options


def require_beam() -> None:
    """Check that Apache Beam is installed.

    Raises:
        InputError: it is not.
    """
    try:
        importlib.import_module("apache_beam")
    except ImportError as error:
        raise InputError(f"--engine=beam needs Apache Beam: {EXTRA} ({error})") from None
