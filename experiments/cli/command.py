"""Running a command: parse flags, return an exit status, print one line for a user's mistake."""

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from absl import app, flags, logging

from albert_jax.interop.hub import HubError
from albert_jax.interop.names import WeightsError
from albert_jax.settings import FieldError, all_settings
from albert_jax.training.checkpoint import NonFiniteStateError
from albert_jax.training.checkpoint.integrity import CheckpointError
from albert_jax.training.determinism import DeterminismError
from data_pipeline.errors import InputError, storage_failure
from data_pipeline.terminal import log_in_lines, print_error, protect_output
from experiments.cli.config_dicts import Config
from experiments.cli.config_flag import parse_flags
from experiments.cli.exit_codes import ExitCode
from experiments.cli.listing import requested_listing
from experiments.cli.named_files import CONFIGS, format_names
from experiments.cli.versions import describe_versions

flags.disclaim_key_flags()  # flags that are defined here belong to the calling command


class Outcome(NamedTuple):
    """How a command ended: its exit status, and the error if there is one."""

    code: int
    line: str | None = None


Main = Callable[[], ExitCode | None]


def run(
    main: Main,
    config_kind: type[Config] | None = None,
    *,
    named_files: Mapping[str, Path] | None = None,
    around: Callable[[Main, type[Config]], ExitCode] | None = None,
) -> NoReturn:
    """Parse the flags, call `main`, and end the process with its exit status.

    Bad flags end it with one line on stderr and status 2; for other errors see `call`.

    Args:
        main: the command.
        config_kind: the dataclass behind ``--config``, if there is such a flag.
        named_files: other flags that accept the name of a file below a directory. Each of them, and
            ``--config``, gets a flag that lists the names, such as ``--list_configs``.
        around: a function that calls `main`, such as `experiments.hosts.on_all_hosts`.
    """
    protect_output()
    directories = {**({"config": CONFIGS} if config_kind else {}), **(named_files or {})}
    for name in directories:
        flags.DEFINE_bool(f"list_{name}s", False, f"print the names for --{name}, and exit")
    flags.DEFINE_bool("version", False, "print the versions of code and libraries, and exit")

    def parser(argv: Sequence[str]) -> list[str]:
        rest: list[str] = []
        if code := call(lambda: rest.extend(_parse(argv, config_kind, directories))):
            sys.exit(code)
        return rest

    wrapped = main
    if around is not None and config_kind is not None:
        wrapped = functools.partial(around, main, config_kind)
    app.run(lambda _: call(wrapped, config_kind), flags_parser=parser)


def call(main: Main, config_kind: type[Config] | None = None) -> int:
    """Call `main`, print its error and return its exit status; see `attempt`."""
    outcome = attempt(main, config_kind)
    if outcome.line is not None:
        print_error(outcome.line)
    return outcome.code


def attempt(main: Main, config_kind: type[Config] | None = None) -> Outcome:
    """Call `main` and return its exit status and its error.

    A user's mistake, a checkpoint or weights that cannot be used, a full disk and a store that
    cannot be reached become one line. Anything else is a bug in the program and is raised.
    """
    try:
        code = main() or ExitCode.DONE
        sys.stdout.flush()  # the disk that the results go to may be full
        return Outcome(code)
    except NonFiniteStateError as error:
        return Outcome(ExitCode.NON_FINITE, str(error))
    except DeterminismError as error:
        return Outcome(ExitCode.FAULTY_DEVICE, str(error))
    except FieldError as error:
        if config_kind and error.field in {one.name for one in all_settings(config_kind)}:
            error = error.named(f"--config.{error.field}")
        return Outcome(ExitCode.BAD_INPUT, str(error))
    except (InputError, CheckpointError, WeightsError, HubError) as error:
        return Outcome(ExitCode.BAD_INPUT, str(error))
    except Exception as error:
        failure = storage_failure(error)
        if failure is None:
            raise
        return Outcome(ExitCode.BAD_INPUT, failure)


def _parse(
    argv: Sequence[str], config_kind: type[Config] | None, directories: Mapping[str, Path]
) -> list[str]:
    """Parse the flags, or print what they ask for and end the process."""
    for name, directory in directories.items():
        if {f"--list_{name}s", f"-list_{name}s"} & set(argv):
            _print_and_exit(format_names(directory))
    if config_kind is not None and (listing := requested_listing(argv, config_kind)):
        _print_and_exit(listing)
    if {"--version", "-version"} & set(argv):
        _print_and_exit(describe_versions())
    try:
        rest = parse_flags(argv, config_kind=config_kind)
    except SystemExit:  # from --help, which absl ends with the status of a failure
        sys.exit(ExitCode.DONE)
    if rest[1:]:
        raise InputError(f"{rest[1]!r} is no flag; a flag is written --name=value")
    log_in_lines()
    if not flags.FLAGS["verbosity"].present:  # Orbax logs every file that it touches
        logging.set_verbosity(logging.WARNING)
    return rest


def _print_and_exit(text: str) -> NoReturn:
    print(text, flush=True)
    sys.exit(ExitCode.DONE)
