"""Relays between a process's JAX client and JAX's coordination service in process 0.

JAX's client ends its process with SIGABRT as soon as its connection to the service breaks. Behind a
relay the connection never breaks. Instead, `Member` finds out that process 0 is gone, says so, and
ends the process with the documented status.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import jax

from experiments.hosts.messages import Streams, send
from experiments.hosts.place import Place

_CHUNK = 2**16
# JAX's own heartbeats would end the process with SIGABRT, so they time out only after ten years.
_HEARTBEAT_SECONDS = 10 * 365 * 24 * 3600


def initialize_jax(place: Place, client: str, service: str) -> None:
    """Join the processes in JAX.

    Args:
        place: which one this is.
        client: the address where this process's client connects.
        service: the address of the coordination service, in process 0.
    """
    # Its SIGTERM handler holds Python's GIL while it waits for an answer through the relay.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        coordinator_address=client,
        coordinator_bind_address=service,
        num_processes=place.num_processes,
        process_id=place.process,
        local_device_ids=place.local_device_ids,
        initialization_timeout=int(place.join_seconds),
        heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
    )


async def serve_client(path: Path, connect: Callable[[], Awaitable[Streams]]) -> None:
    """Let JAX's client connect to a socket file, and relay it to process 0.

    Args:
        path: the socket file.
        connect: opens a connection to process 0.
    """

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            there = await connect()
            send(there[1], "relay")
            await _exchange((reader, writer), there)
        await asyncio.Event().wait()  # keep the client's connection, even if the other one broke

    await asyncio.start_unix_server(relay, path)


async def relay_to_service(streams: Streams, path: Path) -> None:
    """Relay a process's connection to the coordination service behind a socket file."""
    while not path.exists():  # JAX starts it after all processes have joined
        await asyncio.sleep(0.05)
    with contextlib.suppress(OSError):
        await _exchange(streams, await asyncio.open_unix_connection(path))


async def _exchange(one: Streams, other: Streams) -> None:
    """Copy bytes both ways until one side ends."""
    copies = [
        asyncio.ensure_future(_copy(one[0], other[1])),
        asyncio.ensure_future(_copy(other[0], one[1])),
    ]
    await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
    for copy in copies:
        copy.cancel()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
