"""The listing of the settings behind ``--config``."""

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from albert_jax.settings import Setting, all_settings, own_settings
from data_pipeline.errors import InputError
from experiments.cli.config_dicts import Config
from experiments.cli.config_flag import (
    define_config_flag,
    expand_flag_files,
    parse_flags,
    read_config_flag,
)
from experiments.cli.dataclass_forms import flatten, to_dict
from experiments.cli.synonyms import meant_setting

_WIDTH = 100


def requested_listing(argv: Sequence[str], config_kind: type[Config]) -> str | None:
    """Return the listing that a command line with ``--list_config`` asks for, else None.

    Raises:
        InputError: there is no such part, or ``--config`` is wrong.
    """
    written = expand_flag_files(argv, flags.FlagValues())
    part, others = None, []
    for argument in written:
        if match := re.fullmatch(r"--?list_config(?:=(.*))?", argument):
            part = match[1] or ""
        else:
            others.append(argument)
    if part is None:
        return None
    values = flags.FlagValues()
    flag = define_config_flag(values, others, required=False)
    parse_flags(others, values, config_kind=config_kind, known_only=True)
    config = config_kind() if flag.value is None else read_config_flag(flag, config_kind)
    return format_settings(config, part)


def format_settings(config: Any, part: str = "") -> str:
    """Return the settings of a config by group, each with its value, help and allowed values.

    Args:
        config: a dataclass of settings.
        part: a group or a setting, such as ``optimizer``; empty for all.

    Raises:
        InputError: there is no such part.
    """
    names = [one.name for one in all_settings(type(config))]
    groups = [name for name, _, _ in _groups(type(config))]
    if part not in (*names, *groups):
        close = meant_setting(part, [*filter(None, groups), *names], prefix="--list_config=")
        raise InputError(f"--list_config={part}: there is no such part of --config{close}")
    values, defaults = flatten(to_dict(config)), flatten(to_dict(type(config)()))
    blocks = []
    for name, cls, settings in _groups(type(config)):
        chosen = [one for one in settings if f"{one.name}.".startswith(f"{part}.") or not part]
        if chosen:
            lines = [_format_setting(one, values, defaults) for one in chosen]
            head = textwrap.fill(f"{name or 'config'}: {_summary(cls)}", _WIDTH)
            blocks.append("\n".join([head, *lines]))
    return "\n\n".join(blocks)


def _groups(cls: type, name: str = "") -> Iterator[tuple[str, type, list[Setting]]]:
    """Yield each dataclass with its dotted name and those of its settings that flags can set."""
    prefix = name and f"{name}."
    plain, nested = [], []
    for one in own_settings(cls):
        if dataclasses.is_dataclass(one.kind):
            nested.append(one)
        elif one.kind is not Mapping:
            plain.append(dataclasses.replace(one, name=f"{prefix}{one.name}"))
    yield name, cls, plain
    for one in nested:
        yield from _groups(one.kind, f"{prefix}{one.name}")


def _format_setting(one: Setting, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Format a setting.

    Example::

        --config.optimizer.learning_rate=1e-05  (default 0.00176)
            peak, reached after warm-up (a number > 0)
    """
    value, default = values[one.name], defaults[one.name]
    differs = "" if value == default else f"  (default {_in_words(default)})"
    text = textwrap.fill(
        f"{one.help} ({one.allowed})", _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6
    )
    return f"  --config.{one.name}={_in_words(value)}{differs}\n{text}"


def _in_words(value: Any) -> str:
    """Return a value as one would write it in a flag."""
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _summary(cls: type) -> str:
    """Return the first sentence of a docstring."""
    text = " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())
    return text.partition(". ")[0].rstrip(".") + "."
