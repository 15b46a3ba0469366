"""Running a command: flags in, an exit status out, one line for a user's mistake."""

import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

from absl import app, flags, logging

from albert_jax.interop.names import WeightsError
from albert_jax.settings import FieldError, all_settings
from albert_jax.training.checkpoint import NonFiniteStateError
from albert_jax.training.integrity import CheckpointError
from data_pipeline.errors import InputError, is_storage_error
from experiments.cli.config_dicts import Config
from experiments.cli.config_flag import parse_flags
from experiments.cli.exit_codes import ExitCode
from experiments.cli.listing import requested_listing
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
    around: Callable[[Main, type[Config]], ExitCode] | None = None,
) -> NoReturn:
    """Parse the flags, call `main`, and end the process with its exit status.

    Bad flags end it with one line on stderr and status 2; for the rest see `call`.

    Args:
        main: the command.
        config_kind: the dataclass behind ``--config``, if there is such a flag.
        around: calls `main`, such as `experiments.hosts.on_all_hosts`.
    """
    flags.DEFINE_bool("version", False, "print the versions of code and libraries, and exit")

    def parser(argv: Sequence[str]) -> list[str]:
        try:
            if config_kind is not None and (listing := requested_listing(argv, config_kind)):
                _print_and_exit(listing)
            if {"--version", "-version"} & set(argv):
                _print_and_exit(describe_versions())
            rest = parse_flags(argv, config_kind=config_kind)
            if rest[1:]:
                raise InputError(f"{rest[1]!r} is no flag; a flag is written --name=value")
            if not flags.FLAGS["verbosity"].present:  # Orbax logs every file that it touches
                logging.set_verbosity(logging.WARNING)
            return rest
        except InputError as error:
            print_error(str(error))
            sys.exit(ExitCode.BAD_INPUT)

    wrapped = main
    if around is not None and config_kind is not None:
        wrapped = functools.partial(around, main, config_kind)
    app.run(lambda _: call(wrapped, config_kind), flags_parser=parser)


def call(main: Main, config_kind: type[Config] | None = None) -> int:
    """Call `main` for its exit status, and print its error; see `attempt`."""
    outcome = attempt(main, config_kind)
    if outcome.line is not None:
        print_error(outcome.line)
    return outcome.code


def attempt(main: Main, config_kind: type[Config] | None = None) -> Outcome:
    """Call `main` for its exit status and its error.

    A user's mistake, a checkpoint or weights that cannot be used and a full disk become one line;
    anything else is a bug of the program and is raised.
    """
    try:
        return Outcome(main() or ExitCode.DONE)
    except NonFiniteStateError as error:
        return Outcome(ExitCode.NON_FINITE, str(error))
    except FieldError as error:
        if config_kind and error.field in {one.name for one in all_settings(config_kind)}:
            error = error.named(f"--config.{error.field}")
        return Outcome(ExitCode.BAD_INPUT, str(error))
    except (InputError, CheckpointError, WeightsError) as error:
        return Outcome(ExitCode.BAD_INPUT, str(error))
    except OSError as error:
        if not is_storage_error(error):
            raise
        return Outcome(ExitCode.BAD_INPUT, str(error))


def print_error(text: str) -> None:
    """Print an error as one line on stderr."""
    print("error:", " ".join(text.split()), file=sys.stderr, flush=True)


def _print_and_exit(text: str) -> NoReturn:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # `| head` has read enough; nothing is left to flush at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(ExitCode.DONE)
