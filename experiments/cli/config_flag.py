"""The flag ``--config`` and its overrides ``--config.a.b=VALUE``."""

import re
import sys
from collections.abc import Sequence
from typing import Any, Generic, NamedTuple

from absl import flags
from ml_collections import config_flags

from albert_jax.settings import all_settings, did_you_mean
from data_pipeline.errors import InputError
from experiments.cli.config_dicts import Config, ConfigT, from_values
from experiments.cli.dataclass_forms import to_dict
from experiments.cli.exit_codes import ExitCode
from experiments.cli.given_settings import GivenSettings
from experiments.cli.named_files import CONFIGS, check_file, failing_line, find_file
from experiments.cli.synonyms import meant_setting

flags.disclaim_key_flags()  # flags that are defined here belong to the calling command


class ConfigFlag(NamedTuple):
    """The flag ``--config``, with the flags among which it was defined."""

    flag_values: flags.FlagValues

    @property
    def value(self) -> Any:
        """The ConfigDict of the file and its overrides; None without ``--config``."""
        return self.flag_values["config"].value

    def replaced(self) -> dict[str, Any]:
        """Return the file's value of each setting that an override names."""
        named = config_flags.get_override_values(self.flag_values["config"])
        return {name: self.flag_values[f"config.{name}"].default for name in named}


class GivenConfig(NamedTuple, Generic[ConfigT]):
    """The experiment that a command line describes."""

    config: ConfigT
    named: frozenset[str]  # settings that the command line names
    lines: tuple[str, ...]  # the settings that were derived from them


def define_config_flag(
    flag_values: flags.FlagValues = flags.FLAGS,
    argv: Sequence[str] | None = None,
    *,
    required: bool = True,
) -> ConfigFlag:
    """Define ``--config`` and the overrides that the command line uses.

    The flag names a file, or one of `experiments.configs` without its ending. The file's function
    ``get_config()`` returns `experiments.cli.config_dicts.to_config_dict` of an experiment. An
    override may be ``none`` if the field may be None.

    Args:
        flag_values: where the flags are defined.
        argv: the command line, if it is not the one of the process.
        required: True if a command line without it is an error.
    """
    for kind, parser, described in (
        (int, flags.IntegerParser(), "a whole number"),
        (float, flags.FloatParser(), "a number"),
        (bool, flags.BooleanParser(), "true or false"),
    ):
        config_flags.register_flag_parser_for_type(kind, _ParserWithNone(parser, described))
    flags.DEFINE_string(
        "list_config",
        None,
        "print the settings of --config with their values and help, and exit; --list_config=PART "
        "prints a part, such as optimizer",
        flag_values=flag_values,
    )
    try:
        config_flags.DEFINE_config_file(
            "config",
            help_string="the experiment: a file, or a name that --list_configs prints, such as "
            "albert_base; override its settings with --config.NAME=VALUE, see --list_config",
            flag_values=flag_values,
            sys_argv=_arrange(
                flag_values.read_flags_from_files(
                    list(sys.argv if argv is None else argv), force_gnu=False
                )
            ),
        )
    except (flags.Error, UnicodeDecodeError) as error:  # flag files are read right here
        print("error:", error, file=sys.stderr)
        sys.exit(ExitCode.BAD_INPUT)
    if required:
        flags.mark_flag_as_required("config", flag_values)
    return ConfigFlag(flag_values)


def read_config_flag(flag: ConfigFlag, kind: type[ConfigT]) -> ConfigT:
    """Return the experiment that ``--config`` and its overrides describe; see `read_given_config`.

    Raises:
        InputError: a value is not allowed, or parts do not fit together.
    """
    return read_given_config(flag, kind).config


def read_given_config(
    flag: ConfigFlag, kind: type[ConfigT], *, stored: ConfigT | None = None
) -> GivenConfig[ConfigT]:
    """Return the experiment that ``--config`` and its overrides describe.

    Settings that the command line does not name may be derived from those that it does.

    Args:
        flag: the flag.
        kind: the dataclass.
        stored: the experiment of the workdir, if the run is resumed.

    Raises:
        InputError: a value is not allowed, or parts do not fit together.
    """
    if not hasattr(flag.value, "to_dict"):
        raise InputError(f"--config: its get_config() must return to_config_dict({kind.__name__})")
    replaced = flag.replaced()
    kept = None if stored is None else to_dict(stored)
    settings = GivenSettings(flag.value.to_dict(), replaced, kept)
    kind.follow_settings(settings)
    config = from_values(settings.values, kind)
    return GivenConfig(config, frozenset(replaced), tuple(settings.lines))


def parse_flags(
    argv: Sequence[str],
    flag_values: flags.FlagValues = flags.FLAGS,
    *,
    config_kind: type[Config] | None = None,
    known_only: bool = False,
) -> list[str]:
    """Parse the flags and return the rest of the command line.

    Args:
        argv: the command line.
        flag_values: where the flags are defined.
        config_kind: the dataclass behind ``--config``, if there is such a flag.
        known_only: True to leave unknown flags alone.

    Raises:
        InputError: one line that names the flag, what it got, and what is allowed.
    """
    path = None
    if config_kind is not None:
        argv = expand_flag_files(argv, flag_values)
        written = _before_double_dash(argv)
        for path in _config_paths(written):
            check_file("config", path, CONFIGS)
            path = find_file(path, CONFIGS)
        _check_overrides(written, config_kind)
    try:
        return flag_values(_arrange(argv), known_only)
    except flags.UnrecognizedFlagError as error:
        name = error.flagname
        close = did_you_mean(name, {known: f"--{known}" for known in flag_values})
        raise InputError(f"there is no flag --{name}{close}") from error
    except (Exception, SystemExit) as error:  # a config file may raise anything
        line = failing_line(error, path) if path else None
        if line is None and isinstance(error, RecursionError):  # absl looks for a similar name
            line = "there is no flag of so long a name"
        if line is None and not isinstance(error, flags.Error):
            raise
        message = " ".join(str(error).split()).removeprefix("flag ")
        if missing := re.match(r"--(\S+)=None: .*other than None", message):
            message = f"--{missing[1]} is missing: {flag_values[missing[1]].help}"
        raise InputError(line or message) from error


def expand_flag_files(argv: Sequence[str], flag_values: flags.FlagValues) -> list[str]:
    """Return a command line that includes the lines of the files that `--flagfile` names.

    Raises:
        InputError: one of them cannot be read.
    """
    try:
        return flag_values.read_flags_from_files(list(argv), force_gnu=False)
    except flags.Error as error:
        raise InputError(str(error)) from error
    except UnicodeDecodeError as error:
        named = [argument for argument in argv if argument.lstrip("-").startswith("flagfile")]
        raise InputError(f"{' '.join(named)}: the file is not UTF-8: {error}") from error


class _ParserWithNone(flags.ArgumentParser):
    """A parser that also accepts ``none``; the dataclass checks whether its field may be None."""

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


def _arrange(argv: Sequence[str]) -> list[str]:
    """Move ``--config`` ahead of its overrides, as ml_collections requires, and find its file.

    Example: ``[pretrain, --config.seed=1, --config=a.py]`` gives
    ``[pretrain, --config=a.py, --config.seed=1]``.
    """
    program, *arguments = argv
    for position, argument in enumerate(_before_double_dash(arguments)):
        if match := re.match(r"--?config(=|$)", argument):
            stop = position + (1 if match[1] else 2)
            chosen = [_with_found_file(one) for one in arguments[position:stop]]
            return [program, *chosen, *arguments[:position], *arguments[stop:]]
    return [program, *arguments]


def _with_found_file(argument: str) -> str:
    """Replace a name by its file.

    Example: ``--config=albert_base`` gives ``--config=/.../experiments/configs/albert_base.py``.
    """
    flag, equals, value = (
        argument.partition("=") if argument.startswith("-") else ("", "", argument)
    )
    written, colon, rest = value.partition(":")
    return f"{flag}{equals}{find_file(written, CONFIGS)}{colon}{rest}" if value else argument


def _config_paths(arguments: Sequence[str]) -> list[str]:
    """Return the files that ``--config`` names, without any argument after a colon."""
    paths = []
    for argument, after in zip(arguments, [*arguments[1:], ""], strict=True):
        if re.fullmatch(r"--?config", argument):
            paths.append(after)
        elif match := re.match(r"--?config=(.*)", argument, re.DOTALL):
            paths.append(match[1])
    return [path.split(":", 1)[0] for path in paths]


def _check_overrides(arguments: Sequence[str], config_kind: type[Config]) -> None:
    names = [one.name for one in all_settings(config_kind)]
    groups = {name.rpartition(".")[0] for name in names} - {""}
    for argument in arguments:
        match = re.match(r"--?(?:no)?config\.([^=]*)", argument)
        if match and match[1] not in (*names, *groups):
            close = meant_setting(match[1], names, prefix="--config.")
            raise InputError(f"there is no flag --config.{match[1]}{close}")
