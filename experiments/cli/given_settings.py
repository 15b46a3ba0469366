"""Settings that are derived from others, unless the command line or a resumed run fixes them."""

import copy
from collections.abc import Mapping
from typing import Any

from experiments.cli.dataclass_forms import flatten

_LARGEST = 2**63 - 1  # the largest count that a setting may be


class GivenSettings:
    """The settings of a config file and a command line before they are checked, by dotted names.

    A configuration's `follow_settings` changes some of them with `follow` and `keep_share`.

    Args:
        values: a nested dict, the command line's values included.
        replaced: the config file's value of each setting that the command line names.
        stored: the settings of a resumed run, which it keeps; None for a new run.

    Attributes:
        values: the nested dict, including derived settings.
        lines: what was derived from what, a line each.

    Example: ``--config.optimizer.num_train_steps=1000`` with a file that has 125,000 steps and a
    warm-up of 3,125 gives a warm-up of 25.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        replaced: Mapping[str, Any],
        stored: Mapping[str, Any] | None = None,
    ) -> None:
        self.values: dict[str, Any] = copy.deepcopy(dict(values))
        self.lines: list[str] = []
        self._before = dict(replaced)
        self._named = frozenset(replaced)
        self._stored = flatten(stored or {})

    def __getitem__(self, name: str) -> Any:
        """Return the value of a setting, or None if the file leaves it out."""
        group, leaf = self._group_of(name)
        return group.get(leaf)

    def count(self, name: str) -> int:
        """Return the value of a setting that is a count, or 0 if the value is no valid count."""
        value = self[name]
        return value if type(value) is int and 0 < value <= _LARGEST else 0

    def is_named(self, name: str) -> bool:
        """Return True if the command line sets a setting, which is then not derived from others."""
        return name in self._named

    def is_changed(self, name: str) -> bool:
        """Return True if a setting differs from the config file's."""
        return name in self._before and self._before[name] != self[name]

    def follow(self, name: str, value: Any, line: str) -> None:
        """Set a setting that the command line does not name to a derived value, and say so.

        Args:
            name: the setting.
            value: its value in a new run; a resumed run keeps its own.
            line: what changed from what to what, in words.
        """
        value = self._stored.get(name, value)
        if self.is_named(name) or value == self[name]:
            return
        if not self._stored:
            self.lines.append(f"{line}; --config.{name} sets another")
        group, leaf = self._group_of(name)
        self._before[name], group[leaf] = group[leaf], value

    def keep_share(self, name: str, of: str, words: str, *, at_least: int = 0) -> None:
        """Keep a setting at the same fraction of another one as in the config file.

        Args:
            name: the setting to derive.
            of: the other one.
            words: text with places for both values in the file and both new ones, such as
                ``warm-up of {:,} steps for {:,} becomes {:,} for {:,}``.
            at_least: the smallest value allowed.
        """
        value, before, after = self.count(name), self._before.get(of), self.count(of)
        if value and after and type(before) is int and before > 0:
            scaled = max(at_least, scale_steps(value, before, after))
            self.follow(name, scaled, words.format(value, before, scaled, after))

    def _group_of(self, name: str) -> tuple[dict[str, Any], str]:
        *path, leaf = name.split(".")
        group = self.values
        for part in path:
            found = group.get(part)
            group = found if isinstance(found, dict) else {}
        return group, leaf


def scale_steps(steps: int, before: int, after: int) -> int:
    """Return the same fraction of another number of steps.

    Example: 3,125 of 125,000 is 25 of 1,000.
    """
    return round(steps / before * after)
