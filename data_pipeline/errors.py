"""Errors in a user's input, which a command prints as one line before exiting with status 2."""

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
# Scheme of a store -> its library, and the extra of this package that installs it.
STORES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}
# The libraries behind `gs://` and `s3://`, which have their own exception classes.
_STORE_LIBRARIES = frozenset(
    {"tensorflow", "fsspec", "gcsfs", "s3fs", "botocore", "aiobotocore", "aiohttp", "google"}
)


class InputError(ValueError):
    """Bad input; the message names the flag or file and line, the value, and what is allowed."""


def storage_failure(error: BaseException) -> str | None:
    """Describe an error of a disk, a path or a remote store; None for other errors, i.e. bugs.

    C++ libraries raise their own exceptions, with the operating system's message in the text.

    Example: ``[Errno 28] No space left on device: 'metrics.jsonl'``
    """
    text = " ".join(str(error).split())
    # A missing file can also be an error of storage: removed meanwhile, or in an unusual place.
    if isinstance(error, OSError) and error.errno in _STORAGE_ERRORS | {errno.ENOENT}:
        return text
    if isinstance(error, ImportError):
        for scheme, (library, extra) in STORES.items():
            if library in text:
                return f"{scheme}:// needs `pip install 'albert-jax[{extra}]'`"
    # From stores, whose libraries give no error number.
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
        InputError: always, with the message.
    """
    raise InputError(message)
