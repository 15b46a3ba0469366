"""Errors of a user's input: one line that a command prints before it exits with status 2."""

from typing import NoReturn


class InputError(ValueError):
    """Bad input: the message names the flag or the file and line, what it got, what it may be."""


def refuse(message: str) -> NoReturn:
    """What is done about a fault unless something else is asked for.

    Raises:
        InputError: with the message.
    """
    raise InputError(message)
