"""The door of every command: flags in, an exit status out, one line for a user's mistake."""

import errno
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from albert_jax.interop.names import WeightsError
from albert_jax.training.checkpoint import NonFiniteStateError
from albert_jax.training.integrity import CheckpointError
from data_pipeline.errors import InputError
from experiments.cli.config_dicts import Config, ConfigT, from_config_dict
from experiments.cli.dataclass_forms import field_names, nearest
from experiments.cli.exit_codes import ExitCode
from experiments.cli.hosts import LostProcessError

CONFIGS = Path(__file__).parents[1] / "configs"
_STORAGE_ERRORS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
)


def run(main: Callable[[], ExitCode | None], config_kind: type[Config] | None = None) -> NoReturn:
    """Parses the flags, calls `main`, and ends the process with its exit code.

    Bad flags end it with one line on stderr and status 2; for the rest see `call`.

    Args:
        main: the command.
        config_kind: what ``--config`` describes, if there is such a flag.
    """

    def parser(argv: Sequence[str]) -> list[str]:
        try:
            rest = parse_flags(argv, config_kind=config_kind)
            if rest[1:]:
                raise InputError(f"{rest[1]!r} is no flag; a flag is written --name=value")
            if not flags.FLAGS["verbosity"].present:  # Orbax tells every file that it touches
                logging.set_verbosity(logging.WARNING)
            return rest
        except InputError as error:
            sys.exit(_report(error, ExitCode.BAD_INPUT))

    app.run(lambda _: call(main), flags_parser=parser)


def call(main: Callable[[], ExitCode | None]) -> ExitCode:
    """Calls `main` for its exit code.

    A user's mistake, a checkpoint or weights that cannot be used and a full disk become one line on
    stderr; anything else is a fault of the program and keeps its traceback.
    """
    try:
        return main() or ExitCode.DONE
    except NonFiniteStateError as error:
        return _report(error, ExitCode.NON_FINITE)
    except LostProcessError as error:
        _report(error, ExitCode.LOST_PROCESS)
        os._exit(ExitCode.LOST_PROCESS)  # leaving in an orderly way would wait for the lost one
    except (InputError, CheckpointError, WeightsError) as error:
        return _report(error, ExitCode.BAD_INPUT)
    except OSError as error:
        if error.errno not in _STORAGE_ERRORS:
            raise
        return _report(error, ExitCode.BAD_INPUT)


def define_config_flag(
    flag_values: flags.FlagValues = flags.FLAGS,
    argv: Sequence[str] | None = None,
    *,
    required: bool = True,
) -> flags.FlagHolder[Any]:
    """Defines ``--config=FILE`` and, as they are used, its overrides ``--config.a.b=VALUE``.

    The file's function ``get_config()`` returns `experiments.cli.config_dicts.to_config_dict` of an
    experiment. An override may be ``none`` where the field may be None.

    Args:
        flag_values: where the flags are defined.
        argv: the command line, if it is not that of the process.
        required: whether a command line without it is refused.
    """
    for kind, parser, described in (
        (int, flags.IntegerParser(), "a whole number"),
        (float, flags.FloatParser(), "a number"),
        (bool, flags.BooleanParser(), "true or false"),
    ):
        config_flags.register_flag_parser_for_type(kind, _ParserWithNone(parser, described))
    try:
        flag = config_flags.DEFINE_config_file(
            "config",
            help_string="file of the experiment, such as experiments/configs/albert_base.py",
            flag_values=flag_values,
            sys_argv=_config_first(sys.argv if argv is None else argv),
        )
    except flags.Error as error:  # it looks into the command line's flag files at once
        sys.exit(_report(error, ExitCode.BAD_INPUT))
    if required:
        flags.mark_flag_as_required("config", flag_values)
    return flag


def read_config_flag(flag: flags.FlagHolder[Any], kind: type[ConfigT]) -> ConfigT:
    """The experiment that ``--config`` and its overrides describe.

    Raises:
        InputError: a value is out of range, or parts do not fit together.
    """
    if not hasattr(flag.value, "to_dict"):
        raise InputError(f"--config: its get_config() must return to_config_dict({kind.__name__})")
    return from_config_dict(flag.value, kind)


def parse_flags(
    argv: Sequence[str],
    flag_values: flags.FlagValues = flags.FLAGS,
    *,
    config_kind: type[Config] | None = None,
) -> list[str]:
    """Parses the flags; returns what is left of the command line.

    Raises:
        InputError: one line that names the flag, what it got, and what it may be.
    """
    path = None
    if config_kind is not None:
        written = flag_values.read_flags_from_files(argv, force_gnu=False)
        path = _config_path(written)
        _check_overrides(written, config_kind)
    try:
        return flag_values(_config_first(argv))
    except flags.UnrecognizedFlagError as error:
        name = error.flagname
        close = nearest(name, {known: f"--{known}" for known in flag_values})
        raise InputError(f"there is no flag --{name}{close}") from error
    except Exception as error:
        line = _line_in_config_file(error, path)
        if line is None and not isinstance(error, flags.Error):
            raise
        message = " ".join(str(error).split()).removeprefix("flag ")
        if missing := re.match(r"--(\S+)=None: .*other than None", message):
            help_text = flag_values[missing[1]].help
            message = f"--{missing[1]} is missing: {help_text}"
        raise InputError(line or message) from error


class _ParserWithNone(flags.ArgumentParser):
    """Takes ``none`` too; whether a field may be None is checked with the other values."""

    def __init__(self, parser: flags.ArgumentParser, described: str) -> None:
        self._parser = parser
        self._described = described

    def parse(self, argument: Any) -> Any:
        if argument == "none":
            return None
        try:
            return self._parser.parse(argument)
        except (TypeError, ValueError):
            raise ValueError(f"must be {self._described}") from None


def _before_double_dash(argv: Sequence[str]) -> list[str]:
    arguments = list(argv)
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _config_first(argv: Sequence[str]) -> list[str]:
    """Puts ``--config`` before its overrides, which its flag does not understand otherwise.

    Example: ``[pretrain, --config.seed=1, --config=a.py]`` gives
    ``[pretrain, --config=a.py, --config.seed=1]``.
    """
    program, *arguments = argv
    for position, argument in enumerate(_before_double_dash(arguments)):
        if match := re.match(r"--?config(=|$)", argument):
            stop = position + (1 if match[1] else 2)
            chosen = arguments[position:stop]
            return [program, *chosen, *arguments[:position], *arguments[stop:]]
    return [program, *arguments]


def _config_path(argv: Sequence[str]) -> str | None:
    """The file that ``--config`` names, which must exist. A colon starts its argument."""
    arguments = _before_double_dash(argv)
    path = None
    for argument, after in zip(arguments, [*arguments[1:], ""], strict=True):
        if re.fullmatch(r"--?config", argument):
            path = after
        elif match := re.match(r"--?config=(.*)", argument):
            path = match[1]
    if path is None:
        return None
    path = path.split(":", 1)[0]
    if not Path(path).is_file():
        known = {
            file.name: f"experiments/configs/{file.relative_to(CONFIGS)}"
            for file in _config_files()
        }
        close = nearest(Path(path).name, known)
        raise InputError(f"--config={path}: there is no such file{close}")
    return path


def _config_files() -> list[Path]:
    return sorted(file for file in CONFIGS.rglob("*.py") if file.name != "__init__.py")


def _check_overrides(argv: Sequence[str], config_kind: type[Config]) -> None:
    knobs = list(field_names(config_kind))
    groups = {name.rpartition(".")[0] for name in knobs} - {""}
    for argument in _before_double_dash(argv):
        match = re.match(r"--?(?:no)?config\.([^=]*)", argument)
        if not match or match[1] in knobs or match[1] in groups:
            continue
        name = match[1]
        leaf = name.rpartition(".")[2]
        meant = [knob for knob in knobs if knob.rpartition(".")[2] == leaf] or knobs
        close = nearest(name if meant is knobs else meant[0], {k: f"--config.{k}" for k in meant})
        raise InputError(f"there is no flag --config.{name}{close}")


def _line_in_config_file(error: BaseException, path: str | None) -> str | None:
    """What went wrong while the config file ran, if that is where it went wrong."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    if isinstance(error, SyntaxError) and error.filename == path:
        return f"--config={path}: line {error.lineno}: {error.msg}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename == path:
            said = " ".join(str(error).split())
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            return f"--config={path}: line {frame.lineno}: {kind}{said}"
    return None


def _report(error: Exception, code: ExitCode) -> ExitCode:
    print("error:", " ".join(str(error).split()), file=sys.stderr, flush=True)
    return code
