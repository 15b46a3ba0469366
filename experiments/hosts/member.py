"""This process as a member of its run: joining, agreeing, and ending together with the others.

A thread with its own event loop holds the connection to the hub in process 0. When another process
gives a reason to end the run, that thread prints the reason and ends this process, whatever call
its main thread is in. No barrier of JAX or Orbax has to notice.
"""

import asyncio
import contextlib
import shutil
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from data_pipeline.errors import InputError
from experiments.cli.command import Outcome
from experiments.cli.exit_codes import ExitCode
from experiments.hosts.agreement import Facts, format_differences
from experiments.hosts.ending import Ending
from experiments.hosts.hub import STOPPED_EARLY, Hub, describe_loss, describe_missing
from experiments.hosts.messages import Message, Streams, connect, flush, receive, send
from experiments.hosts.place import Place
from experiments.hosts.relay import initialize_jax, serve_client
from experiments.hosts.signs_of_life import (
    ALIVE_SECONDS,
    SILENT_SECONDS,
    WHY_SILENT,
    SignsOfLife,
)
from experiments.hosts.stop_call import StopCall

# Time for all processes to reach a comparison: the slowest one may be copying a corpus.
AGREEMENT_SECONDS = 3600
# Time to learn, after an error, whether the loss of another process may have caused it.
SETTLE_SECONDS = 2.0
# Time that process 0 waits for the others once it is done itself.
GOODBYE_SECONDS = 300.0
# Time that process 0, when another process ends it, waits for the others to end.
LINGER_SECONDS = 5.0

T = TypeVar("T")


class Member:
    """A process that has joined the others of its run.

    Args:
        place: its place among them.

    Raises:
        InputError: the others cannot be reached, or were started for another run.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        # The files of its sockets need short paths.
        self._directory = Path(tempfile.mkdtemp(prefix="albert-jax-", dir="/tmp"))
        self._ending = Ending(self._directory)
        self._failing = False
        self._joined = threading.Event()
        self._compared: dict[str, asyncio.Future[list[str]]] = {}
        self._gathered: dict[str, asyncio.Future[dict[int, Message]]] = {}
        self._hub = None
        if place.process == 0:
            self._hub = Hub(place.num_processes, self._directory / "service", self._start)
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._signs = SignsOfLife()
        self._left = asyncio.Event()
        self._stop_call = StopCall()
        signal.signal(signal.SIGTERM, self._terminate)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="hosts", daemon=True).start()
        try:
            self._call(self._connect())
            self._join()
        except BaseException:
            shutil.rmtree(self._directory, ignore_errors=True)
            raise

    def start_jax(self) -> None:
        """Connect JAX's processes, through the relays."""
        service = f"unix:{self._directory}/service"
        client = service if self._hub else f"unix:{self._directory}/client"
        if not self._hub:
            self._call(serve_client(self._directory / "client", self._open))
        initialize_jax(self.place, client, service)

    def agree(self, name: str, facts: Facts) -> None:
        """Compare facts with those of all processes, which call this together.

        Raises:
            InputError: they differ; all processes raise the same error.
        """
        differences = self._call(self._compare(name, facts))
        if differences:
            raise InputError(format_differences(differences))

    def gather(self, name: str, values: Message, seconds: float) -> dict[int, Message] | None:
        """Gather the values of all processes in process 0, without the devices.

        Args:
            name: name of what is gathered, a new one each time; all processes gather the same.
            values: the values of this process, which JSON can represent.
            seconds: how long process 0 waits for the others, which do not wait themselves.

        Returns:
            On process 0 the values by process, or an empty dict if some did not arrive; else None.
        """
        if self._hub:
            return self._call(self._collect(name, values, seconds))
        self._loop.call_soon_threadsafe(self._say, "values", {"name": name, "values": values})
        return None

    def reached_stop(self) -> bool:
        """Return True if a SIGTERM to any process should stop the run here.

        All processes call this at the same points, and get the same answer at each of them.
        """
        return self._stop_call.reached()

    def print_stacks_everywhere(self, line: str) -> NoReturn:
        """End all processes that still answer; each prints its stacks and exits with status 75."""
        self._loop.call_soon_threadsafe(self._say, "hangs", {"line": line})
        time.sleep(2 * ALIVE_SECONDS)  # the answer ends this process
        self._call(self._end(ExitCode.PREEMPTED, line, stacks=True))
        threading.Event().wait()  # it was ending already
        raise AssertionError

    def settle(self) -> None:
        """Wait after an error, in case it came from the loss of another process.

        The news of that loss then ends this process.
        """
        self._failing = True
        time.sleep(SETTLE_SECONDS)

    def finish(self, outcome: Outcome, *, at_once: bool = False, printed: bool = False) -> NoReturn:
        """Print how this process has ended, tell the others, and end it.

        An orderly exit would wait for JAX's connections to the others, and fail with them.

        Args:
            outcome: its exit status and error.
            at_once: True if the others cannot go on without this process.
            printed: True if the error is printed already.
        """
        self._ending.begin(wait=True)
        if not printed:
            self._ending.print(outcome.line)
        message = {"status": int(outcome.code), "line": outcome.line, "at_once": at_once}
        with contextlib.suppress(TimeoutError):  # whoever is gone need not be told
            self._call(self._say_goodbye(message), GOODBYE_SECONDS + 2 * SILENT_SECONDS)
        self._ending.exit(outcome.code)

    def _call(self, coroutine: Coroutine[Any, Any, T], seconds: float | None = None) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(seconds)

    async def _connect(self) -> None:
        """Start the hub, or find that of process 0, and say hello."""
        place = self.place
        if self._hub:
            try:
                await self._hub.serve(place.port)
            except OSError as error:
                raise InputError(
                    f"process 0 cannot listen at the port of --coordinator_address: {error}"
                ) from error
        try:
            reader, self._writer = await self._open(place.join_seconds)
        except OSError as error:
            raise InputError(
                "the processes of this run do not find each other: process 0 does not answer at "
                f"{place.host}:{place.port} within --join_seconds={place.join_seconds:g} ({error})"
            ) from error
        send(self._writer, "hello", process=place.process, count=place.num_processes)
        self._start(self._listen(reader))
        self._start(self._watch())

    def _join(self) -> None:
        place = self.place
        # Process 0 reports who is missing, so the others wait longer.
        patience = place.join_seconds if self._hub else place.join_seconds + SILENT_SECONDS
        if self._joined.wait(patience):
            return
        missing = self._hub.missing if self._hub else []
        line = describe_missing(missing, place.num_processes, place.join_seconds)
        self.finish(Outcome(ExitCode.BAD_INPUT, line), at_once=True)

    async def _open(self, seconds: float = 0) -> Streams:
        host = "localhost" if self._hub else self.place.host
        return await connect(host, self.place.port, seconds=seconds)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while message := await receive(reader):
            self._signs.hear(0)
            self._handle(message)
        await self._end_lost("its connection ended")

    async def _watch(self) -> None:
        """Send signs of life, and find out if the hub sends none."""
        while True:
            await asyncio.sleep(ALIVE_SECONDS)
            self._say("alive", {})
            if self._signs.find_silent():
                await self._end_lost(WHY_SILENT)

    async def _compare(self, name: str, facts: Facts) -> list[str]:
        compared = self._compared[name] = self._loop.create_future()
        self._say("facts", {"name": name, "facts": dict(facts)})
        try:
            return await asyncio.wait_for(compared, AGREEMENT_SECONDS)
        except TimeoutError:
            raise InputError(
                f"the processes of this run did not all come to the comparison of their {name} "
                f"within {AGREEMENT_SECONDS} s"
            ) from None

    async def _collect(self, name: str, values: Message, seconds: float) -> dict[int, Message]:
        gathered = self._gathered[name] = self._loop.create_future()
        self._say("values", {"name": name, "values": values})
        try:
            return await asyncio.wait_for(gathered, seconds)
        except TimeoutError:
            return {}
        finally:
            del self._gathered[name]

    async def _say_goodbye(self, message: Message) -> None:
        if self._writer is None:
            return
        self._say("ends", message)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._left.wait(), 5)
        if self._hub:
            patience = GOODBYE_SECONDS if message["status"] == ExitCode.DONE else SILENT_SECONDS
            await self._hub.see_off(self.place.process, patience)
        else:
            await flush(self._writer, 1)

    def _handle(self, message: Message) -> None:
        match message["kind"]:
            case "joined":
                self._joined.set()
            case "compared":
                self._compared.pop(message["name"]).set_result(message["differences"])
            case "gathered":
                future = self._gathered.get(message["name"])
                if future and not future.done():  # else it came too late
                    future.set_result({int(n): own for n, own in message["values"].items()})
            case "print stacks":
                self._start(self._end(ExitCode.PREEMPTED, message["line"], stacks=True))
            case "count calls":
                self._say("calls", {"calls": self._stop_call.hold()})
            case "stop at call":
                self._stop_call.settle(message["call"])
            case "end":
                if not (message["failed"] and self._failing):  # its own error says more
                    self._start(self._end(message["status"], message["line"]))
            case "bye":
                self._left.set()

    def _say(self, kind: str, content: Message) -> None:
        if self._writer is not None:
            send(self._writer, kind, **content)

    def _terminate(self, number: int, frame: Any) -> None:
        """Stop all processes at the same call of `reached_stop`; at once if not all have joined."""
        if self._joined.is_set():
            self._loop.call_soon_threadsafe(self._say, "terminated", {})
        elif not self._ending.begun:
            self.finish(Outcome(ExitCode.PREEMPTED, STOPPED_EARLY), at_once=True)

    async def _end_lost(self, why: str) -> None:
        if self._hub is None:
            await self._end(ExitCode.LOST_PROCESS, describe_loss(0, self.place.num_processes, why))

    async def _end(self, status: int, line: str, *, stacks: bool = False) -> None:
        """End this process for another one's reason, unless it is ending for its own already."""
        if not self._ending.begin():
            return
        self._ending.print(line, stacks=stacks)
        if self._hub:
            await self._hub.see_off(self.place.process, LINGER_SECONDS)
        self._ending.exit(status)

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)  # the loop itself holds no reference
        task.add_done_callback(self._check)

    def _check(self, task: asyncio.Task[None]) -> None:
        """End the process if a task ended with a bug: nothing would watch over it any more."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            traceback.print_exception(error)
            self._ending.exit(1)
