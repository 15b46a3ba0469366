"""Repeated flags of the form NAME=VALUE."""

from collections.abc import Sequence

from data_pipeline.errors import InputError


def parse_assignments(flag: str, written: Sequence[str]) -> dict[str, str]:
    """Parse repeated NAME=VALUE flags. Example: ``["data.ngram=1"]`` gives ``{"data.ngram": "1"}``.

    Raises:
        InputError: one has no name or no equals sign.
    """
    pairs = {}
    for text in written:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise InputError(f"--{flag}={text}: must be NAME=VALUE")
        pairs[name.removeprefix("config.")] = value
    return pairs
