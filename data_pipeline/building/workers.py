"""Worker processes of a build, which take items in turn and return results in order."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from data_pipeline.errors import InputError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Workers:
    """Processes that apply functions to items; if there is only one, it is this process itself.

    They start with the first item, and stop when the context exits.
    """

    def __init__(self, num_processes: int) -> None:
        self._num_processes = num_processes
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(
        self, function: Callable[[_Item], _Result], items: Iterable[_Item]
    ) -> Generator[_Result, None, None]:
        """Apply a picklable function, and yield the results in the order of the items.

        The number of pending items is bounded, so memory does not grow with the input.

        Raises:
            InputError: a worker process was killed.
        """
        if self._num_processes == 1:
            yield from map(function, items)
            return
        if self._pool is None:
            # Forking is unsafe once a library has started threads.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._num_processes, context)
        pending: deque[Future[Any]] = deque()
        try:
            for item in items:
                pending.append(self._pool.submit(function, item))
                if len(pending) > 2 * self._num_processes:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool:
            raise InputError(
                "a worker process was killed, perhaps for lack of memory: set --num_processes "
                f"lower than {self._num_processes}; run the same command again to resume"
            ) from None
        finally:
            for future in pending:
                future.cancel()
