"""Errors in a user's input, which a command prints in one line before it exits with status 2."""

import errno
import os
import re
from typing import NoReturn

_STORAGE_ERRORS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EMLINK),
        *(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG),
        *(errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN),
    }
)
# Scheme of each store -> its library, and the extra of this package that has it.
STORES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}
# The libraries behind `gs://` and `s3://`, whose errors are of classes of their own.
_STORE_LIBRARIES = frozenset(
    {"tensorflow", "fsspec", "gcsfs", "s3fs", "botocore", "aiobotocore", "aiohttp", "google"}
)


class InputError(ValueError):
    """Bad input: the message names the flag or the file and line, what it got, what it may be."""


def storage_failure(error: BaseException) -> str | None:
    """Describe an error of a disk, a path or a remote store; None for all others, which are bugs.

    Libraries in C++ have exceptions of their own, with the operating system's message in the text.

    Example: ``[Errno 28] No space left on device: 'metrics.jsonl'``
    """
    text = " ".join(str(error).split())
    # A file that is missing, where nobody expects it to be: removed meanwhile, or in no real place.
    if isinstance(error, OSError) and error.errno in _STORAGE_ERRORS | {errno.ENOENT}:
        return text
    if isinstance(error, ImportError):
        for scheme, (library, extra) in STORES.items():
            if library in text:
                return f"{scheme}:// needs `pip install 'albert-jax[{extra}]'`"
    # Of stores, whose libraries give no number.
    if isinstance(error, FileNotFoundError | PermissionError) and error.errno is None:
        return f"{type(error).__name__}: {text}"
    if isinstance(error, KeyError) and re.fullmatch(r"'\w+://'", text):  # from etils.epath
        return f"no file system for {text.strip(chr(39))} is installed"
    if isinstance(error, OSError) and re.fullmatch(r"\d+ requested and \d+ written", text):
        return f"a file could not be written as a whole, perhaps for a full disk ({text})"
    if type(error).__module__.partition(".")[0] in _STORE_LIBRARIES and "://" in text:
        return text
    if any(os.strerror(number) in text for number in _STORAGE_ERRORS):
        return text
    return None


def raise_input_error(message: str) -> NoReturn:
    """Raise an `InputError`: the default of functions that take a callback for bad input.

    Raises:
        InputError: with the message.
    """
    raise InputError(message)
