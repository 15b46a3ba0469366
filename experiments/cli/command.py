"""Running a command: flags in, an exit status out, one line for a user's mistake."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from absl import app, flags, logging

from albert_jax.interop.names import WeightsError
from albert_jax.settings import FieldError, all_settings
from albert_jax.training.checkpoint import NonFiniteStateError
from albert_jax.training.checkpoint.integrity import CheckpointError
from albert_jax.training.determinism import DeterminismError
from data_pipeline.errors import InputError, storage_failure
from data_pipeline.terminal import protect_output
from experiments.cli.config_dicts import Config
from experiments.cli.config_flag import parse_flags
from experiments.cli.exit_codes import ExitCode
from experiments.cli.hosts import LostProcessError
from experiments.cli.listing import requested_listing
from experiments.cli.versions import describe_versions

flags.disclaim_key_flags()  # flags that are defined here belong to the calling command

_LONGEST_LINE = 4000  # characters: messages quote flags and files, of whatever length


def run(main: Callable[[], ExitCode | None], config_kind: type[Config] | None = None) -> NoReturn:
    """Parse the flags, call `main`, and end the process with its exit status.

    Bad flags end it with one line on stderr and status 2; for the rest see `call`.

    Args:
        main: the command.
        config_kind: the dataclass behind ``--config``, if there is such a flag.
    """
    protect_output()
    flags.DEFINE_bool("version", False, "print the versions of code and libraries, and exit")

    def parser(argv: Sequence[str]) -> list[str]:
        rest: list[str] = []
        if code := call(lambda: rest.extend(_parse(argv, config_kind))):
            sys.exit(code)
        return rest

    app.run(lambda _: call(main, config_kind), flags_parser=parser)


def call(main: Callable[[], ExitCode | None], config_kind: type[Config] | None = None) -> ExitCode:
    """Call `main` for its exit status.

    A user's mistake, a checkpoint or weights that cannot be used, a full disk and a store that
    cannot be reached become one line on stderr; anything else is a bug of the program and keeps its
    traceback.
    """
    try:
        code = main() or ExitCode.DONE
        sys.stdout.flush()  # the results, to what may be a full disk
        return code
    except NonFiniteStateError as error:
        return _report(error, ExitCode.NON_FINITE)
    except DeterminismError as error:
        return _report(error, ExitCode.FAULTY_DEVICE)
    except LostProcessError as error:
        _report(error, ExitCode.LOST_PROCESS)
        os._exit(ExitCode.LOST_PROCESS)  # an orderly exit would wait for the lost process
    except FieldError as error:
        if config_kind and error.field in {one.name for one in all_settings(config_kind)}:
            error = error.named(f"--config.{error.field}")
        return _report(error, ExitCode.BAD_INPUT)
    except (InputError, CheckpointError, WeightsError) as error:
        return _report(error, ExitCode.BAD_INPUT)
    except Exception as error:
        failure = storage_failure(error)
        if failure is None:
            raise
        return _report(failure, ExitCode.BAD_INPUT)


def _parse(argv: Sequence[str], config_kind: type[Config] | None) -> list[str]:
    """Parse the flags, or print what they ask for and end the process."""
    if config_kind is not None and (listing := requested_listing(argv, config_kind)):
        _print_and_exit(listing)
    if {"--version", "-version"} & set(argv):
        _print_and_exit(describe_versions())
    try:
        rest = parse_flags(argv, config_kind=config_kind)
    except SystemExit:  # of --help, which absl ends like a failure
        sys.exit(ExitCode.DONE)
    if rest[1:]:
        raise InputError(f"{rest[1]!r} is no flag; a flag is written --name=value")
    if not flags.FLAGS["verbosity"].present:  # Orbax logs every file that it touches
        logging.set_verbosity(logging.WARNING)
    return rest


def _print_and_exit(text: str) -> NoReturn:
    print(text, flush=True)
    sys.exit(ExitCode.DONE)


def _report(error: Exception | str, code: ExitCode) -> ExitCode:
    line = " ".join(str(error).split())
    if len(line) > _LONGEST_LINE:
        line = f"{line[:_LONGEST_LINE]} …"
    print("error:", line, file=sys.stderr, flush=True)
    return code
