"""Lines of files, plain or compressed, local or remote, and the treatment of bad UTF-8."""

import contextlib
import dataclasses
import glob
import io
import os
from collections import Counter
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from etils import epath

from albert_jax.input_files import is_remote
from data_pipeline.errors import InputError, raise_input_error
from data_pipeline.remote import file_system, open_path, open_remote
from data_pipeline.sources.compression import COMPRESSED_SUFFIXES, DAMAGE, decompress

# Nobody writes text with longer lines, and each line is held in memory.
MAX_LINE_BYTES = 64 << 20
_READ_AHEAD = 1 << 20
# Names of the counts of lines and documents that are not read as they are.
FAULTS = ("cut_documents", "replaced_lines", "skipped_lines")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EncodingErrors(StrEnum):
    """Treatment of lines that are not UTF-8: raise an error, insert U+FFFD, or skip the line."""

    REFUSE = "refuse"
    REPLACE = "replace"
    SKIP = "skip"


class Span(NamedTuple):
    """A range of bytes of a file that consists of whole lines."""

    start: int
    end: int
    lines_before: int = 0


class InputFile(NamedTuple):
    """A file to read, given by path or URL."""

    name: str
    size: int  # bytes, as stored
    version: str  # changes when the file does, e.g. the modification time
    span: Span | None = None  # the range to read; None for the whole file

    def require_unchanged(self) -> None:
        """Check that the file still has this size and version.

        Raises:
            InputError: the file has changed or is gone.
        """
        now = _stat_file(open_path(self.name), "")
        if (now.size, now.version) != (self.size, self.version):
            raise InputError(
                f"{self.name} has changed since it was listed ({self.size:,} bytes then, "
                f"{now.size:,} now): start the build again"
            )


@dataclasses.dataclass
class ReadingProgress:
    """Bytes read so far, and counts of faults; one object is shared by all files of a build."""

    bytes_before: int = 0  # bytes of finished files
    replaced_lines: int = 0
    skipped_lines: int = 0
    cut_documents: int = 0
    file: str = ""  # the file being read, or the last one read
    _raw: Any = None

    def faults(self) -> Counter[str]:
        """Return the counts of faults by name."""
        return Counter({name: getattr(self, name) for name in FAULTS})

    @property
    def bytes_read(self) -> int:
        """Bytes read so far, as stored (compressed)."""
        return self.bytes_before + (self._raw.tell() if self._raw else 0)

    def start(self, file: InputFile, raw: Any = None) -> None:
        """Start a file, and follow the position of its stream if there is one."""
        self.file, self._raw = file.name, raw

    def finish(self, size: int) -> None:
        """Count a file of this size as finished."""
        self._raw = None
        self.bytes_before += size


def find_files(pattern: str, flag: str) -> list[InputFile]:
    """Find the files of a path or glob, sorted by name.

    Args:
        pattern: a local path or glob, or one on a store (`gs://bucket/text/*.gz`).
        flag: the flag and its value, for messages.

    Raises:
        InputError: no file matches, or one of them is a directory or empty.
    """
    if is_remote(pattern):
        bucket = open_remote(pattern).parents[-3]
        below = pattern.removeprefix(f"{bucket}/")
        try:
            paths: list[Any] = sorted(bucket.glob(below), key=os.fspath)
        except FileNotFoundError:  # raised if the bucket does not exist
            paths = []
    else:
        paths = [epath.Path(name) for name in sorted(glob.glob(pattern, recursive=True))]
    if not paths:
        raise InputError(f"{flag}: no file matches")
    for path in paths:
        if path.is_dir():
            raise InputError(
                f"{flag}: {path} is a directory; give files or a glob such as {path}/*"
            )
    return [_stat_file(path, f"{flag}: ") for path in paths]


def find_file(path: Path) -> InputFile:
    """Find a local file by its path.

    Raises:
        InputError: the file does not exist, is a directory, or is empty.
    """
    return _stat_file(epath.Path(path), "")


def _stat_file(path: Any, place: str) -> InputFile:
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise InputError(f"{place}{path} does not exist") from None
    except OSError as error:  # such as a loop of links, too long a name, or no permission
        reason = error.strerror or error
        raise InputError(f"{place}{path} cannot be read: {reason}") from None
    if stat.is_directory:
        raise InputError(f"{place}{path} is a directory, expected a file")
    if stat.length == 0:
        raise InputError(f"{place}{path} is empty")
    name = os.fspath(path)
    # Not all stores report a modification time; `ukey` includes a version or a hash instead.
    version = file_system(name).ukey(name) if is_remote(name) else str(stat.mtime)
    return InputFile(name, stat.length, version)


def read_lines(
    file: InputFile, encoding_errors: EncodingErrors, progress: ReadingProgress
) -> Iterator[tuple[int, str]]:
    """Read numbered lines with their line ends.

    Raises:
        InputError: the file is binary, damaged or, with `EncodingErrors.REFUSE`, not UTF-8; the
            message names the line.
    """
    for number, raw in read_raw_lines(file, progress):
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            if encoding_errors is EncodingErrors.REFUSE:
                raise InputError(
                    f"{_describe_bad_utf8(file, number, error)}; --encoding_errors may be replace "
                    "or skip"
                ) from None
            if encoding_errors is EncodingErrors.SKIP:
                progress.skipped_lines += 1
                continue
            progress.replaced_lines += 1
            line = raw.decode("utf-8", errors="replace")
        yield number, line


def read_raw_lines(file: InputFile, progress: ReadingProgress) -> Iterator[tuple[int, bytes]]:
    """Read numbered lines as stored, with line ends but without a byte order mark.

    Raises:
        InputError: the file is binary or damaged, and the message names the line; or no line feed
            is among its carriage returns.
    """
    start, end, number = file.span or (0, None, 0)
    with open_bytes(file, progress) as stream:
        if start:
            stream.seek(start)
        position = start
        while (end is None or position < end) and (raw := _read_line(stream, file, number)):
            number += 1
            is_first, position = not position, position + len(raw)
            if is_first:
                raw = raw.removeprefix(_BYTE_ORDER_MARK)
                if not raw.endswith(b"\n") and b"\r" in raw.rstrip(b"\r"):
                    raise InputError(
                        f"{file.name}: its lines end with carriage returns alone: end them with "
                        "line feeds"
                    )
            if b"\0" in raw:
                raise InputError(
                    f"{file.name}:{number}: a zero byte; is the file binary, or UTF-16?"
                )
            yield number, raw
    progress.finish(file.size)


def decode_lines(
    file: InputFile, on_malformed: Callable[[str], object] = raise_input_error
) -> Iterator[tuple[int, str]]:
    """Read numbered lines with their line ends.

    Args:
        file: the file.
        on_malformed: called with file and line of each line that is not UTF-8, which is skipped.

    Raises:
        InputError: the file is binary or damaged, or `on_malformed` raises it.
    """
    for number, raw in read_raw_lines(file, ReadingProgress()):
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            on_malformed(_describe_bad_utf8(file, number, error))
            continue
        yield number, line


def _describe_bad_utf8(file: InputFile, number: int, error: UnicodeDecodeError) -> str:
    byte = error.object[error.start]
    return f"{file.name}:{number}: byte {error.start + 1} (0x{byte:02x}) is not UTF-8"


@contextlib.contextmanager
def open_bytes(file: InputFile, progress: ReadingProgress) -> Iterator[BinaryIO]:
    """Open a file, decompressing it if its name ends in .gz, .xz, .bz2 or .zst.

    Raises:
        InputError: the file cannot be opened.
    """
    try:
        path = open_remote(file.name) if is_remote(file.name) else Path(file.name)
        raw: Any = path.open("rb")
    except OSError as error:
        raise InputError(f"{file.name} cannot be read: {error.strerror or error}") from None
    suffix = Path(file.name).suffix
    with raw:
        progress.start(file, raw)
        if suffix in COMPRESSED_SUFFIXES:
            yield decompress(raw, suffix)
        elif is_remote(file.name):  # files of stores have no `readline` of a limited length
            yield io.BufferedReader(raw, _READ_AHEAD)
        else:
            yield raw


def _read_line(stream: Any, file: InputFile, number: int) -> bytes:
    try:
        line: bytes = stream.readline(MAX_LINE_BYTES)
    except DAMAGE as error:
        raise InputError(f"{file.name} is damaged after line {number}: {error}") from None
    if len(line) == MAX_LINE_BYTES:
        raise InputError(
            f"{file.name}:{number + 1}: the line is longer than {MAX_LINE_BYTES >> 20} MiB"
        )
    return line
