"""Tracking: the trackers of a run, each in its own thread, which cannot end the run."""

import functools
import json
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from albert_jax.input_files import read_json_object, shorten
from data_pipeline.errors import InputError
from experiments.metrics.metrics_file import METRICS_FILE, metrics_of, read_metrics, replace
from experiments.metrics.tracker import Ending, TrackedRun, Tracker, Value

TRACKERS_FILE = "trackers.json"
END_SECONDS = 60.0  # time for a tracker to write what is left

_NOTHING = sys.maxsize  # in place of the first step that a tracker lacks, if it lacks none
_REMEDY = (
    f"{METRICS_FILE} has everything, and once that is mended the next start of the run gives the "
    "tracker what it lacks"
)


class Tracking:
    """The started trackers of a run.

    A tracker that is new to a run, or failed in it, gets the metrics it lacks from the metrics
    file.

    Args:
        trackers: trackers that are not started yet, by name.
        workdir: the run's directory.
        settings: the run's settings by their dotted names.
        first_step: number of steps that were taken before and are not repeated.
        repeated: entries of the metrics file that the run repeats.
        say: prints a line.

    Raises:
        InputError: a tracker cannot be started in a new run; in a resumed run that is a warning.
    """

    def __init__(
        self,
        trackers: Mapping[str, Tracker],
        workdir: epath.Path,
        settings: Mapping[str, Value],
        *,
        first_step: int,
        repeated: Sequence[Mapping[str, Any]],
        say: Callable[[str], None],
    ) -> None:
        self._workdir, self._say, self._guard = workdir, say, threading.Lock()
        self._repeated = {(entry["step"], entry["split"]) for entry in repeated}
        self._runs = self._read_runs(trackers)
        self._workers: list[_Worker] = []
        for name, tracker in trackers.items():
            run = TrackedRun(str(workdir), settings, first_step, self._runs[name]["run_id"])
            self._start(name, tracker, run)
        self._write_runs()

    def log_metrics(
        self, step: int, split: str, seconds: float, metrics: Mapping[str, float]
    ) -> None:
        """Log metrics of a split after a step."""
        for worker in self._workers:
            had = (step, split) in self._repeated and step < worker.lacking
            if worker.tracker.rewinds or not had:
                worker.log_metrics(step, split, seconds, metrics)

    def log_picture(self, step: int, name: str, png: bytes) -> None:
        """Log a picture."""
        for worker in self._workers:
            worker.put(functools.partial(worker.tracker.log_picture, step, name, png), step)

    def end(self, ending: Ending) -> None:
        """End all trackers, and wait for each of them for at most `END_SECONDS`."""
        for worker in self._workers:
            worker.put(functools.partial(worker.tracker.end, ending), None)
        for worker in self._workers:
            if not worker.join(END_SECONDS):
                self._say(
                    f"warning: tracker {worker.name} has not ended within {END_SECONDS:g} seconds, "
                    f"and is left behind; {METRICS_FILE} has everything"
                )

    def _start(self, name: str, tracker: Tracker, run: TrackedRun) -> None:
        known = self._runs[name]
        lacking = _NOTHING if known["lacking"] is None else known["lacking"]
        try:
            known["run_id"] = tracker.start(run)
        except Exception as error:
            text = f"--config.run.trackers: {name} cannot be started ({_in_one_line(error)})"
            if not run.first_step:
                raise InputError(f"{text}; leave it out to train without it") from error
            known["lacking"] = min(lacking, run.first_step + 1)
            self._say(f"warning: {text}: training goes on without it; {_REMEDY}")
            return
        worker = _Worker(name, tracker, lacking, functools.partial(self._note_failure, name))
        self._workers.append(worker)
        known["lacking"] = None
        if lacking <= run.first_step:
            for entry in read_metrics(self._workdir):
                if entry["step"] >= lacking:
                    seconds = entry.get("time", 0.0)
                    worker.log_metrics(entry["step"], entry["split"], seconds, metrics_of(entry))

    def _note_failure(self, name: str, error: Exception, step: int | None) -> None:
        when = "at the end" if step is None else f"at step {step}"
        self._say(
            f"warning: tracker {name} failed {when} ({_in_one_line(error)}): training goes on "
            f"without it; {_REMEDY}"
        )
        self._runs[name]["lacking"] = step
        try:
            self._write_runs()
        except OSError as failure:  # the disk may have failed, and the tracker because of it
            self._say(f"warning: {TRACKERS_FILE} was not written ({_in_one_line(failure)})")

    def _read_runs(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Read the id of each tracker's run and the first step that it lacks, if any."""
        path = self._workdir / TRACKERS_FILE
        runs = dict(read_json_object(path, error=InputError)) if path.exists() else {}
        for name, run in runs.items():
            match run:
                case {"run_id": str() | None, "lacking": int() | None}:
                    continue
            raise InputError(
                f"{path} is damaged: {name} is {shorten(run)}; without that file trackers start "
                "new runs"
            )
        return {name: {"run_id": None, "lacking": 0} for name in names} | runs

    def _write_runs(self) -> None:
        with self._guard:
            text = json.dumps(self._runs, indent=2) + "\n"
            replace(self._workdir / TRACKERS_FILE, text.encode())


class _Worker:
    """A thread that makes a tracker's calls one after another, until one fails."""

    def __init__(
        self,
        name: str,
        tracker: Tracker,
        lacking: int,
        failed: Callable[[Exception, int | None], None],
    ) -> None:
        self.name, self.tracker, self.lacking, self._failed = name, tracker, lacking, failed
        self._calls: queue.SimpleQueue[tuple[Callable[[], None], int | None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def log_metrics(
        self, step: int, split: str, seconds: float, metrics: Mapping[str, float]
    ) -> None:
        named = {f"{split}/{name}": value for name, value in metrics.items()}
        self.put(functools.partial(self.tracker.log_metrics, step, seconds, named), step)

    def put(self, call: Callable[[], None], step: int | None) -> None:
        """Queue a call for a step; a call with step None is the last one."""
        self._calls.put((call, step))

    def join(self, seconds: float) -> bool:
        """Wait for the last call; return False if it takes longer than that."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        step: int | None = 0
        while step is not None:
            call, step = self._calls.get()
            try:
                call()
            except Exception as error:
                self._failed(error, step)
                return


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]
