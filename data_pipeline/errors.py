"""Errors of a user's input: one line that a command prints before it exits with status 2."""


class InputError(ValueError):
    """Bad input: the message names the flag or the file and line, what it got, what it may be."""
