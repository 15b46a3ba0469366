"""Commands in processes forked from one that has imported everything, so that each starts at once.

Reads one JSON object a line from stdin (see `Request`), and answers each with its exit status.
"""

import functools
import importlib
import importlib.util
import json
import os
import runpy
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

MODULES = (
    # Before TensorFlow, see tests/conftest.py.
    *(["triton"] if importlib.util.find_spec("triton") else []),
    # Commands import these only once they need them.
    *("matplotlib.figure", "matplotlib.ticker", "scipy.stats", "sklearn.metrics"),
    "data_pipeline.build_corpus",
    "data_pipeline.pretraining.dataset",
    *(
        f"experiments.{name}"
        for name in (
            *(
                "pretrain",
                "evaluate",
                "finetune",
                "predict",
                "convert",
                "benchmark",
                "sweep",
                "glue",
                "compile",
            ),
            *("probe", "export_records", "import_records"),
        )
    ),
)
TIMEOUT_SECONDS = 300


class Request(NamedTuple):
    """A command to run."""

    argv: list[str]  # a module or a Python file, and its arguments
    cwd: str
    output: str  # file for stdout and stderr
    environment: dict[str, str]
    parse_only: bool  # read the flags and the configuration, and do nothing


def parse_only() -> None:
    """Let every command end after its flags and its configuration were read."""
    from absl import flags

    from experiments.cli import command
    from experiments.cli.config_flag import ConfigFlag, read_config_flag

    run_command = command.run

    def run(
        main: Callable[[], Any],
        config_kind: Any = None,
        *,
        named_files: Any = None,
        around: Any = None,
    ) -> None:
        def read() -> None:
            if config_kind is not None and flags.FLAGS.config is not None:
                read_config_flag(ConfigFlag(flags.FLAGS), config_kind)

        run_command(read, config_kind, named_files=named_files)

    command.run = run


def execute(request: Request) -> None:
    """Run a command in this process, and end the process."""
    signal.alarm(TIMEOUT_SECONDS)
    os.chdir(request.cwd)
    os.environ.update(request.environment)
    output = os.open(request.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = list(request.argv)
    program = request.argv[0]
    status = 0
    try:
        if request.parse_only:
            parse_only()
        if program.endswith(".py"):
            runpy.run_path(program, run_name="__main__")
        else:
            sys.modules.pop(program, None)
            runpy.run_module(program, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def serve(requests: Sequence[str] | Any, answers: Any) -> None:
    for name in MODULES:
        importlib.import_module(name)
    answer = functools.partial(print, file=answers, flush=True)
    for line in requests:
        child = os.fork()
        if child == 0:
            execute(Request(**json.loads(line)))
        _, status = os.waitpid(child, 0)
        answer(os.waitstatus_to_exitcode(status))
    os._exit(0)  # at once: nothing here needs to be cleaned up


if __name__ == "__main__":
    serve(sys.stdin, os.fdopen(os.dup(1), "w"))
