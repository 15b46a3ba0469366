"""Standard output and error of a command: printing that never fails, and progress."""

import contextlib
import errno
import io
import logging
import os
import shlex
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, TextIO

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 30  # of progress, if standard error is not a terminal
_LONGEST_LINE = 4000  # characters of an error; messages quote flags and files of any length

# The errors that mean that the reader or the terminal is gone.
_GONE = frozenset({errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO})


def protect_output() -> None:
    """Let the process print whatever happens to its standard streams.

    Characters that the encoding lacks are replaced. Output is discarded once nobody reads it. If
    the disk is full, output to standard error is discarded; on standard output, where results go,
    an OSError is raised, once.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # fills standard streams that were closed, whose numbers the next file would get
    os.close(descriptor)
    sys.stdout = _protected(sys.stdout, raises=True)
    sys.stderr = _protected(sys.stderr, raises=False)


def _protected(stream: Any, *, raises: bool) -> Any:
    """Protect a stream of the process; a replacement in memory cannot fail and stays as it is."""
    stream = stream or _discarding()
    return _ProtectedStream(stream, raises=raises) if hasattr(stream, "buffer") else stream


class _ProtectedStream(io.TextIOWrapper):
    """A text stream that discards all output after its first error."""

    def __init__(self, stream: TextIO, *, raises: bool) -> None:
        self._raises = raises
        self._stream = stream  # if it were garbage-collected, it would close the file
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


def is_watched() -> bool:
    """Return True if standard error is a terminal, where a bar can move."""
    return sys.stderr.isatty()


def say(text: str) -> None:
    """Print a line on standard error, above progress bars."""
    tqdm.write(text, file=sys.stderr)


def print_error(text: str) -> None:
    """Print an error as one line on standard error."""
    line = " ".join(text.split())
    if len(line) > _LONGEST_LINE:
        line = f"{line[:_LONGEST_LINE]} …"
    print("error:", line, file=sys.stderr, flush=True)


def suggest(module: str, *arguments: object) -> None:
    """Print the command to run next on standard error, after what was printed on standard output.

    Example: ``next: python -m experiments.evaluate --workdir=runs/base``
    """
    sys.stdout.flush()
    say(f"next: python -m {shlex.join([module, *map(str, arguments)])}")


class _LineHandler(logging.Handler):
    """Prints each message once, on a line of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            say(self.format(record))
        except Exception:
            self.handleError(record)


def log_in_lines() -> None:
    """Let the process print log messages, including those of libraries, as ``warning: ...``.

    Messages of level INFO have no prefix.
    """
    handler = _LineHandler()
    handler.setFormatter(_LineFormatter())
    logging.getLogger().handlers = [handler]  # handlers of libraries would print everything again


class _LineFormatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        if record.levelno == logging.INFO:
            return record.message
        return f"{record.levelname.lower()}: {record.message}"


class ByteProgress:
    """Progress through a number of bytes: a bar on a terminal, else a line every half minute.

    Args:
        label: what is being done, such as ``Encoding``.
        total: the number of bytes.
    """

    def __init__(self, label: str, total: int) -> None:
        self._label, self._total, self._is_watched = label, total, is_watched()
        self._start = self._said = time.monotonic()
        self._bar = tqdm(
            *(None, label, total),
            unit="B",
            unit_scale=True,
            smoothing=0.05,
            disable=not self._is_watched,
        )

    def __enter__(self) -> "ByteProgress":
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        self._bar.close()
        if kind is None and not self._is_watched:
            seconds = time.monotonic() - self._start
            size, speed = format_size(self._total), format_size(self._total / max(seconds, 1e-3))
            say(f"{self._label}: {size} in {format_seconds(seconds)}, {speed}/s")

    def move_to(self, done: int) -> None:
        """Show that this many bytes are done."""
        self._bar.update(done - self._bar.n)
        now = time.monotonic()
        if not self._is_watched and done and now >= self._said + _SECONDS_BETWEEN_LINES:
            self._said, speed = now, done / (now - self._start)
            left = format_seconds((self._total - done) / speed)
            done_of = f"{format_size(done)} of {format_size(self._total)}"
            say(f"{self._label}: {done_of}, {format_size(speed)}/s, {left} to go")


@contextlib.contextmanager
def elapsed_time(label: str) -> Iterator[None]:
    """Show what happens inside the context and how long it takes, meanwhile and at the end.

    On a terminal a clock runs. Elsewhere, a line is printed at the beginning, every half minute,
    and at the end.
    """
    start, ended, moves = time.monotonic(), threading.Event(), is_watched()
    clock = tqdm(desc=label, bar_format="{desc}: {elapsed}", disable=not moves)

    def show() -> None:
        while not ended.wait(1 if moves else _SECONDS_BETWEEN_LINES):
            if moves:
                clock.refresh()
            else:
                say(f"{label}: {format_seconds(time.monotonic() - start)} so far")

    if not moves:
        say(f"{label} ...")
    thread = threading.Thread(target=show, name="elapsed time", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        clock.close()
    if not moves:
        say(f"{label}: {format_seconds(time.monotonic() - start)}")


def format_seconds(seconds: int | float) -> str:
    """Format a duration in its two largest units.

    Examples: ``4.1 s``, ``35 s``, ``2 min 5 s``, ``1 h 20 min``, ``3 d 4 h``.
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for (unit, size), (smaller, part) in (
        (("d", 86400), ("h", 3600)),
        (("h", 3600), ("min", 60)),
        (("min", 60), ("s", 1)),
    ):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {smaller}"
    return f"{whole} s"


def format_size(number: int | float) -> str:
    """Format a number of bytes. Examples: ``12.3 kB``, ``197.0 MB``, ``16.0 GB``."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number / 1e3:.1f} kB"
