"""Standard output and error of a command, in which printing is never what fails."""

import errno
import io
import os
import sys
from typing import TextIO

# The reader, or the terminal, has gone.
_GONE = frozenset({errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO})


def protect_output() -> None:
    """Let the process print whatever happens to its standard streams.

    Characters that a terminal has not become replacements. What nobody reads any longer is thrown
    away. A full disk throws away what goes to standard error; on standard output, where results go,
    it raises an OSError, once.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # one that was closed, which the next file would get
    os.close(descriptor)
    sys.stdout = _ProtectedStream(sys.stdout or _discarding(), raises=True)
    sys.stderr = _ProtectedStream(sys.stderr or _discarding(), raises=False)


class _ProtectedStream(io.TextIOWrapper):
    """A text stream that discards everything after its first error."""

    def __init__(self, stream: TextIO, *, raises: bool) -> None:
        self._raises = raises
        self._stream = stream  # which would close the file if it were collected
        super().__init__(
            stream.buffer,
            encoding=stream.encoding,
            errors="replace" if raises else "backslashreplace",
            line_buffering=stream.isatty() or not raises,
        )

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._discard(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._discard(error)

    def _discard(self, error: OSError) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        if self._raises and error.errno not in _GONE:
            raise error


def _discarding() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")
