"""Decompression that reads every byte: truncation and damage are errors, not ends of a text."""

import functools
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from typing import Any

_READ_AHEAD = 1 << 20

# What reading raises where a file is damaged.
DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError)


class _XzStreams(io.RawIOBase):
    """Decompresses consecutive xz streams, with or without padding between them.

    `LZMAFile` stops at padding, and at a stream whose beginning is damaged.
    """

    def __init__(self, raw: Any) -> None:
        self._raw, self._stream = raw, lzma.LZMADecompressor()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        text = b""
        while not text:
            data = b""
            if self._stream.eof:
                data = self._stream.unused_data.lstrip(b"\0")
                while not data and (more := self._raw.read(_READ_AHEAD)):
                    data = more.lstrip(b"\0")
                if not data:
                    return 0
                self._stream = lzma.LZMADecompressor()
            elif self._stream.needs_input and not (data := self._raw.read(_READ_AHEAD)):
                raise EOFError("the last stream has no end")
            text = self._stream.decompress(data, len(buffer))
        buffer[: len(text)] = text
        return len(text)


def _open_with_arrow(raw: Any, *, codec: str) -> Any:
    """Decompress one stream or frame after another.

    `BZ2File` stops at one whose beginning is damaged, and zstandard at one that has no end.
    """
    import pyarrow  # takes a while, and plain text does not need it

    return pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, "r"), codec)


_DECOMPRESSORS: dict[str, Callable[[Any], Any]] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".xz": _XzStreams,
    ".bz2": functools.partial(_open_with_arrow, codec="bz2"),
    ".zst": functools.partial(_open_with_arrow, codec="zstd"),
}
COMPRESSED_SUFFIXES = frozenset(_DECOMPRESSORS)


def decompress(raw: Any, suffix: str) -> io.BufferedReader:
    """Return the text of a compressed file, of which reading may raise one of `DAMAGE`.

    Args:
        raw: the file as it is stored, open for reading bytes.
        suffix: the suffix of its name, one of `COMPRESSED_SUFFIXES`.
    """
    return io.BufferedReader(_DECOMPRESSORS[suffix](raw), _READ_AHEAD)
