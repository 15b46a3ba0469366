"""Messages between the processes of a run: one JSON object a line."""

import asyncio
import json
from typing import Any

Message = dict[str, Any]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

# The most bytes of a line. The settings and source files of a process take some 20 kB.
LINE_LIMIT = 2**22


async def connect(host: str, port: int, *, seconds: float = 0) -> Streams:
    """Connect to an address, trying again for up to `seconds`.

    Raises:
        OSError: it does not answer in that time.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            return await asyncio.open_connection(host, port, limit=LINE_LIMIT)
        except OSError:
            if asyncio.get_running_loop().time() >= deadline:
                raise
            await asyncio.sleep(0.2)


async def receive(reader: asyncio.StreamReader) -> Message | None:
    """Return the next message, or None if the connection ended or what arrived is no message."""
    try:
        line = await reader.readline()
        message = json.loads(line) if line.endswith(b"\n") else None
    except (OSError, ValueError):
        return None
    return message if isinstance(message, dict) and "kind" in message else None


def send(writer: asyncio.StreamWriter, kind: str, **content: Any) -> None:
    """Send a message, or drop it if the process is gone, which reading from it will show."""
    if not writer.is_closing():
        writer.write(json.dumps({"kind": kind} | content).encode() + b"\n")


async def flush(writer: asyncio.StreamWriter, seconds: float) -> None:
    """Wait at most `seconds` until the operating system has taken all that was sent."""
    deadline = asyncio.get_running_loop().time() + seconds
    while writer.transport.get_write_buffer_size():
        if writer.is_closing() or asyncio.get_running_loop().time() > deadline:
            return
        await asyncio.sleep(0.01)
