"""The log of a run: `metrics.jsonl`, log lines, trackers, and a bar on a terminal."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from etils import epath
from tqdm import tqdm

from data_pipeline.terminal import format_seconds, is_watched, say
from experiments.metrics.metrics_file import append_metrics, remove_metrics_after
from experiments.metrics.tracker import Ending, Tracker, Value
from experiments.metrics.tracking import Tracking

_NOT_SAID = ("optimizer", "goodput")  # a number for each tensor; printed once at the end


class StepWork(NamedTuple):
    """The work of a step."""

    rows: int
    flops: float  # of matrix products, forward and backward


class RunLog:
    """The log of a run.

    On a terminal it shows a progress bar, elsewhere a line for each entry of training. Metrics of
    the optimizer are not printed.

    A resumed run first removes the metrics of steps that it repeats, so that the metrics file has
    each step once. Damaged lines of the file are removed with a warning.

    Args:
        workdir: the directory of the files; local or remote.
        first_step: number of steps that were taken before and are not repeated.
        num_steps: number of steps of the whole run.
        work_of_step: returns rows and operations of a step, counted from 0.
        peak_flops: the peak of all devices together; None: not known.
        enabled: True on the one process that writes.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        *,
        first_step: int,
        num_steps: int,
        work_of_step: Callable[[int], StepWork],
        peak_flops: float | None,
        enabled: bool = True,
    ) -> None:
        self._workdir, self._first_step = epath.Path(workdir), first_step
        self._work_of_step = work_of_step
        self._peak_flops = peak_flops
        self._enabled = enabled
        self._tracking: Tracking | None = None
        self._ending = Ending.STOPPED
        self._repeated = self._remove_after(first_step) if enabled else []
        self._bar = tqdm(
            total=num_steps,
            initial=first_step,
            unit="step",
            dynamic_ncols=True,
            mininterval=1.0,
            smoothing=0.05,
            disable=not (enabled and is_watched()),
        )
        self._num_steps = num_steps
        self._first: tuple[int, float] | None = None  # step and time, once the step is compiled

    def track(self, trackers: Mapping[str, Tracker], settings: Mapping[str, Value]) -> None:
        """Start trackers, which get everything that is logged from now on.

        Args:
            trackers: the trackers, by name.
            settings: the run's settings, by dotted name.

        Raises:
            InputError: a tracker cannot be started.
        """
        self._tracking = Tracking(
            trackers,
            self._workdir,
            settings,
            first_step=self._first_step,
            repeated=self._repeated,
            say=self.say,
        )

    def complete(self, step: int, picture: epath.Path) -> None:
        """Note that the run is complete, and track a picture of it, if there is one."""
        self._ending = Ending.COMPLETE
        if self._tracking is not None and picture.exists():
            self._tracking.log_picture(step, picture.stem, picture.read_bytes())

    def say(self, text: str) -> None:
        """Print a line above the progress bar."""
        if self._enabled:
            say(text)

    def advance(self, step: int) -> None:
        """Move the progress bar."""
        self._first = self._first or (step, time.monotonic())
        self._bar.update(step - self._bar.n)

    def report(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Log metrics of a split (`train`, `validation`, `optimizer`, `goodput`) after a step."""
        metrics = dict(metrics)
        if seconds := metrics.get("seconds_per_step"):
            work = self._work_of_step(step - 1)
            metrics["rows_per_second"] = work.rows / seconds
            metrics["flops_per_second"] = work.flops / seconds
            if self._peak_flops:
                metrics["share_of_peak"] = metrics["flops_per_second"] / self._peak_flops
        if not self._enabled:
            return
        now = round(time.time(), 3)
        entry = {"step": step, "split": split, "time": now, **metrics}
        # Evaluations may decide when a run ends, so a resumed run has to find all of them.
        append_metrics(self._workdir, entry, durably=split != "train")
        if self._tracking is not None:
            self._tracking.log_metrics(step, split, now, metrics)
        if split == "train":
            self._show_training(step, metrics)
        elif split not in _NOT_SAID:
            shown = ", ".join(f"{_spell(name)} {_format(metrics[name])}" for name in metrics)
            self.say(f"step {step:,}, {split}: {shown}")

    def _show_training(self, step: int, metrics: Mapping[str, float]) -> None:
        parts = _describe_training(metrics)
        if not self._bar.disable:
            self._bar.set_postfix_str(", ".join(parts), refresh=False)
            return
        if left := self._num_steps - step:
            parts.append(f"{format_seconds(left * self._seconds_per_step(step, metrics))} to go")
        self.say(f"step {step:,} of {self._num_steps:,}: {', '.join(parts)}")

    def _seconds_per_step(self, step: int, metrics: Mapping[str, float]) -> float:
        """Return the mean since the first step, evaluations included, or the entry's own value."""
        if self._first is None or step <= self._first[0]:
            return metrics["seconds_per_step"]
        return (time.monotonic() - self._first[1]) / (step - self._first[0])

    def _remove_after(self, first_step: int) -> list[dict[str, Any]]:
        if removed := remove_metrics_after(self._workdir, first_step):
            last = max(entry["step"] for entry in removed)
            self.say(f"steps up to {last} were taken before, after the last save, and are repeated")
        return removed

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *error: object) -> None:
        if self._tracking is not None:
            self._tracking.end(self._ending if error[0] is None else Ending.FAILED)
        self._bar.close()


def _describe_training(metrics: Mapping[str, float]) -> list[str]:
    parts = [f"loss {metrics['loss']:.3f}"] if "loss" in metrics else []
    if "learning_rate" in metrics:
        parts.append(f"learning rate {metrics['learning_rate']:.3g}")
    parts.append(f"{metrics['rows_per_second']:,.4g} rows/s")
    if "share_of_peak" in metrics:
        parts.append(f"{metrics['share_of_peak']:.0%} of peak")
    if metrics["loader_wait_share"] > 0.02:
        parts.append(f"waiting for data {metrics['loader_wait_share']:.0%}")
    return parts


def _spell(name: str) -> str:
    """Return a metric's name in words. Example: ``masked LM accuracy``."""
    return name.replace("_", " ").replace("masked lm", "masked LM")


def _format(value: float) -> str:
    """Return a number: whole, or with four decimals, because more would be noise."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4f}"
