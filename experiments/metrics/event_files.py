"""TensorBoard's event files: records of a step, a time and a summary."""

import os
import socket
import struct
import time
from collections.abc import Iterator
from io import BytesIO

from etils import epath
from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from experiments.metrics.metrics_file import append, replace

_PREFIX = "events.out.tfevents."
_HEADER, _CHECKSUM = struct.Struct("<QI"), struct.Struct("<I")


class EventFile:
    """An event file of this process, created with its first event.

    Args:
        directory: local or remote.
    """

    def __init__(self, directory: epath.PathLike) -> None:
        name = f"{_PREFIX}{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._path = epath.Path(directory) / name
        self._head = [Event(wall_time=time.time(), file_version="brain.Event:2")]

    def write(self, step: int, seconds: float, summary: Summary) -> None:
        """Write the summary of a step.

        Args:
            step: the step.
            seconds: the time, in seconds since 1970.
            summary: scalars, pictures or hyperparameters.
        """
        event = Event(wall_time=seconds, step=step, summary=summary)
        append(self._path, _encode(*self._head, event))
        self._head = []


def remove_events_after(directory: epath.PathLike, step: int) -> None:
    """Remove the events of steps after one from a directory's event files.

    A resumed run repeats these steps, and TensorBoard would show both. Everything behind a damaged
    or incomplete record, where no reader gets to, is removed too.
    """
    for path in epath.Path(directory).iterdir():
        if path.name.startswith(_PREFIX):
            content = path.read_bytes()
            kept = b"".join(record for event, record in _decode(content) if event.step <= step)
            if kept != content:
                replace(path, kept)


def read_events(path: epath.PathLike) -> list[Event]:
    """Read the events of a file."""
    return [event for event, _ in _decode(epath.Path(path).read_bytes())]


def _encode(*events: Event) -> bytes:
    records = BytesIO()
    writer = RecordWriter(records)
    for event in events:
        writer.write(event.SerializeToString())
    return records.getvalue()


def _decode(content: bytes) -> Iterator[tuple[Event, bytes]]:
    """Yield each event and the record that holds it, up to the first damaged one."""
    offset = 0
    while offset + _HEADER.size <= len(content):
        start = offset + _HEADER.size
        length, _ = _HEADER.unpack_from(content, offset)
        end = start + length + _CHECKSUM.size
        if end > len(content):
            return
        try:
            event = Event.FromString(content[start : start + length])
        except DecodeError:
            return
        yield event, content[offset:end]
        offset = end
