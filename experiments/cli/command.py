"""Running a command: flags in, an exit status out, one line for a user's mistake."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from absl import app, flags, logging

from albert_jax.interop.names import WeightsError
from albert_jax.settings import FieldError, all_settings
from albert_jax.training.checkpoint import NonFiniteStateError
from albert_jax.training.integrity import CheckpointError
from data_pipeline.errors import InputError, is_storage_error
from experiments.cli.config_dicts import Config
from experiments.cli.config_flag import parse_flags
from experiments.cli.exit_codes import ExitCode
from experiments.cli.hosts import LostProcessError
from experiments.cli.listing import requested_listing
from experiments.cli.named_files import CONFIGS, format_names
from experiments.cli.versions import describe_versions

flags.disclaim_key_flags()  # flags that are defined here belong to the calling command


def run(
    main: Callable[[], ExitCode | None],
    config_kind: type[Config] | None = None,
    named_files: Mapping[str, Path] | None = None,
) -> NoReturn:
    """Parse the flags, call `main`, and end the process with its exit status.

    Bad flags end it with one line on stderr and status 2; for the rest see `call`.

    Args:
        main: the command.
        config_kind: the dataclass behind ``--config``, if there is such a flag.
        named_files: other flags that accept the name of a file below a directory. Each, and
            ``--config``, gets a flag that lists the names: ``--list_configs``.
    """
    directories = {**({"config": CONFIGS} if config_kind else {}), **(named_files or {})}
    for name in directories:
        flags.DEFINE_bool(f"list_{name}s", False, f"print the names for --{name}, and exit")
    flags.DEFINE_bool("version", False, "print the versions of code and libraries, and exit")

    def parser(argv: Sequence[str]) -> list[str]:
        try:
            for name, directory in directories.items():
                if {f"--list_{name}s", f"-list_{name}s"} & set(argv):
                    _print_and_exit(format_names(directory))
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
            sys.exit(_report(error, ExitCode.BAD_INPUT))

    app.run(lambda _: call(main, config_kind), flags_parser=parser)


def call(main: Callable[[], ExitCode | None], config_kind: type[Config] | None = None) -> ExitCode:
    """Call `main` for its exit status.

    A user's mistake, a checkpoint or weights that cannot be used and a full disk become one line on
    stderr; anything else is a bug of the program and keeps its traceback.
    """
    try:
        return main() or ExitCode.DONE
    except NonFiniteStateError as error:
        return _report(error, ExitCode.NON_FINITE)
    except LostProcessError as error:
        _report(error, ExitCode.LOST_PROCESS)
        os._exit(ExitCode.LOST_PROCESS)  # an orderly exit would wait for the lost process
    except FieldError as error:
        if config_kind and error.field in {one.name for one in all_settings(config_kind)}:
            error = error.named(f"--config.{error.field}")
        return _report(error, ExitCode.BAD_INPUT)
    except (InputError, CheckpointError, WeightsError) as error:
        return _report(error, ExitCode.BAD_INPUT)
    except OSError as error:
        if not is_storage_error(error):
            raise
        return _report(error, ExitCode.BAD_INPUT)


def _print_and_exit(text: str) -> NoReturn:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # `| head` has read enough; nothing is left to flush at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(ExitCode.DONE)


def _report(error: Exception, code: ExitCode) -> ExitCode:
    print("error:", " ".join(str(error).split()), file=sys.stderr, flush=True)
    return code
