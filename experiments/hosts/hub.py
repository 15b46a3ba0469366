"""The hub of a run: the server in process 0 that all processes are connected to.

It knows which processes are alive, compares what they are about to compute, and tells the others
how each of them ended. It listens at the coordinator's address, where it also relays JAX's own
connections.
"""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from experiments.cli.exit_codes import ExitCode
from experiments.hosts.agreement import find_differences, name_processes
from experiments.hosts.messages import LINE_LIMIT, Message, flush, receive, send
from experiments.hosts.relay import relay_to_service
from experiments.hosts.signs_of_life import ALIVE_SECONDS, WHY_SILENT, SignsOfLife

# Time for the others to end by themselves after a process has ended with an error.
GRACE_SECONDS = 20.0

STOPPED_EARLY = "stopped by SIGTERM before the first step; the same command starts it again"

_BUG = 1


class Hub:
    """The hub. Call all of its methods in the thread of one event loop.

    Args:
        count: processes of the run.
        service: socket file of JAX's coordination service.
        start: starts a task.
    """

    def __init__(
        self, count: int, service: Path, start: Callable[[Coroutine[Any, Any, None]], None]
    ) -> None:
        self._count, self._service, self._start = count, service, start
        self._members: dict[int, asyncio.StreamWriter] = {}
        self._signs = SignsOfLife()
        self._ended: set[int] = set()
        self._facts: dict[str, dict[int, dict[str, str]]] = {}
        self._values: dict[str, dict[int, Message]] = {}
        self._calls: dict[int, int] | None = None  # counts of `StopCall`, after a SIGTERM

    async def serve(self, port: int) -> None:
        """Start to listen at a port, on all of the machine's addresses.

        Raises:
            OSError: the port is taken.
        """
        await asyncio.start_server(self._answer, None, port, limit=LINE_LIMIT)
        self._start(self._watch())

    @property
    def missing(self) -> list[int]:
        """The processes that have not joined."""
        return [number for number in range(self._count) if number not in self._members]

    async def see_off(self, own: int, seconds: float) -> None:
        """Wait at most `seconds` until all processes but `own` have ended."""
        deadline = _now() + seconds
        while set(self._members) - self._ended - {own} and _now() < deadline:
            await asyncio.sleep(0.05)
        for writer in self._members.values():
            send(writer, "bye")
            await flush(writer, 1)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await receive(reader)
        if first is None:
            writer.close()
        elif first["kind"] == "relay":
            await relay_to_service((reader, writer), self._service)
        elif first["kind"] == "hello":
            await self._listen(first, reader, writer)

    async def _listen(
        self, hello: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        process, count = hello["process"], hello["count"]
        if process in self._members:
            line = f"process {process} has joined already: two were started with its number"
            send(writer, "end", status=ExitCode.BAD_INPUT, line=line, failed=False)
            return
        self._members[process] = writer
        self._signs.hear(process)
        if count != self._count:
            line = f"process {process} is one of {count} processes, process 0 of {self._count}"
            self._end_others(None, ExitCode.BAD_INPUT, line)
        elif not self.missing:
            self._tell_all("joined")
        while message := await receive(reader):
            self._signs.hear(process)
            self._handle(process, message)
        if process not in self._ended:
            self._lose(process, "its connection ended")

    def _handle(self, process: int, message: Message) -> None:
        match message["kind"]:
            case "facts":
                self._compare(process, message["name"], message["facts"])
            case "values":
                self._gather(process, message["name"], message["values"])
            case "terminated":
                if self._calls is None:
                    self._calls = {}
                    self._tell_all("count calls")
            case "calls":
                self._stop(process, message["calls"])
            case "hangs":
                self._tell_all("print stacks", line=message["line"])
            case "ends":
                self._ended.add(process)
                send(self._members[process], "bye")
                self._start(self._pass_on(process, message))

    def _compare(self, process: int, name: str, facts: dict[str, str]) -> None:
        collected = self._facts.setdefault(name, {})
        collected[process] = facts
        if len(collected) == self._count:
            del self._facts[name]  # another comparison may have this name
            self._tell_all("compared", name=name, differences=find_differences(collected))

    def _gather(self, process: int, name: str, values: Message) -> None:
        """Send the values of all processes to process 0 once all have arrived."""
        collected = self._values.setdefault(name, {})
        collected[process] = values
        if len(collected) == self._count:
            del self._values[name]
            send(self._members[0], "gathered", name=name, values=collected)

    def _stop(self, process: int, calls: int) -> None:
        """Let all processes stop at the same call, or at once if no step was taken."""
        assert self._calls is not None
        self._calls[process] = calls
        if set(self._calls) | self._ended < set(self._members):
            return
        if any(self._calls.values()):
            self._tell_all("stop at call", call=max(self._calls.values()) + 1)
        else:
            self._end_others(None, ExitCode.PREEMPTED, STOPPED_EARLY)

    async def _pass_on(self, process: int, message: Message) -> None:
        """End the other processes after one has ended with an error.

        They end at once if they cannot go on without it, else after `GRACE_SECONDS`.
        """
        status = message["status"]
        if status == ExitCode.DONE:
            return
        if not message["at_once"]:
            await asyncio.sleep(GRACE_SECONDS)
        line = f"process {process} ended with status {status}: {message['line']}"
        status = ExitCode.LOST_PROCESS if status == _BUG else status
        self._end_others(process, status, line, failed=True)

    def _lose(self, process: int, why: str) -> None:
        self._ended.add(process)
        line = describe_loss(process, self._count, why)
        self._end_others(process, ExitCode.LOST_PROCESS, line)

    def _end_others(
        self, cause: int | None, status: int, line: str, *, failed: bool = False
    ) -> None:
        self._tell_all("end", without=cause, status=status, line=line, failed=failed)

    def _tell_all(self, kind: str, *, without: int | None = None, **content: Any) -> None:
        for process, writer in self._members.items():
            if process not in self._ended and process != without:
                send(writer, kind, **content)

    async def _watch(self) -> None:
        """Send signs of life, and find the processes that send none."""
        while True:
            await asyncio.sleep(ALIVE_SECONDS)
            self._tell_all("alive")
            for process in self._signs.find_silent():
                if process not in self._ended:
                    self._lose(process, WHY_SILENT)


def _now() -> float:
    return asyncio.get_running_loop().time()


def describe_missing(missing: list[int], count: int, seconds: float) -> str:
    """Return the error about processes that did not join."""
    return (
        f"the processes of this run do not find each other: {name_processes(missing)} of {count} "
        f"did not join within --join_seconds={seconds:g}"
    )


def describe_loss(process: int, count: int, why: str) -> str:
    """Return the error about a process that was lost."""
    return (
        f"process {process} of {count} was lost ({why}); restart all of them: the run resumes from "
        "its last checkpoint"
    )
