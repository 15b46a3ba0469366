"""Errors in a user's input, which a command prints in one line before it exits with status 2."""

import errno
from typing import NoReturn

_STORAGE_ERRORS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS),
        *(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENAMETOOLONG),
        *(errno.ELOOP, errno.EISDIR),
    }
)


class InputError(ValueError):
    """Bad input: the message names the flag or the file and line, what it got, what it may be."""


def is_storage_error(error: OSError) -> bool:
    """Return True for an error of a disk or a path, such as no space or no permission.

    Others are bugs of the program.
    """
    return error.errno in _STORAGE_ERRORS


def raise_input_error(message: str) -> NoReturn:
    """Raise an `InputError`: the default of functions that take a callback for bad input.

    Raises:
        InputError: with the message.
    """
    raise InputError(message)
