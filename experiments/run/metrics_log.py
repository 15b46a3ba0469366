"""What a run tells: a progress bar, `metrics.jsonl`, TensorBoard events, and words between."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import tensorflow as tf
from etils import epath
from tqdm import tqdm

from albert_jax.durable_files import write_atomically
from data_pipeline.remote import is_remote

METRICS_FILE = "metrics.jsonl"


def read_metrics(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """The entries of a workdir's metrics file in order of steps; none where there is no file.

    Example: a file of ``{"step": 20, "split": "train", "loss": 9.1}`` and the part ``{"step": 4``
    of a line, left by a run that was killed, has one entry.
    """
    path = epath.Path(workdir) / METRICS_FILE
    if not path.exists():
        return []
    whole_lines = path.read_text().split("\n")[:-1]
    return [json.loads(line) for line in whole_lines]


class StepWork(NamedTuple):
    """What a step goes through."""

    rows: int
    flops: float  # of products, forward and backward


class RunLog:
    """Where a run's figures go. Only the process that is told to writes anything.

    A run that is taken up again first strikes out the figures of steps that it takes again, so
    that the metrics file has each once.

    Args:
        workdir: where the files lie; local or remote.
        first_step: steps that were taken before and are not taken again.
        num_steps: steps of the whole run.
        work_of_step: a step, counted from 0, to its rows and operations.
        peak_flops: the peak of all devices together, or None where it is not known.
        enabled: whether this process writes.
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
        self._metrics_path = epath.Path(workdir) / METRICS_FILE
        self._work_of_step = work_of_step
        self._peak_flops = peak_flops
        self._enabled = enabled
        if enabled:
            self._strike_out_after(first_step)
        self._events = tf.summary.create_file_writer(str(workdir)) if enabled else None
        self._bar = tqdm(
            total=num_steps,
            initial=first_step,
            unit="step",
            dynamic_ncols=True,
            mininterval=1.0,
            smoothing=0.05,
            disable=not enabled,
        )

    def say(self, text: str) -> None:
        """A line for people, above the progress bar."""
        if self._enabled:
            tqdm.write(text, file=sys.stderr)

    def advance(self, step: int) -> None:
        """Moves the progress bar."""
        self._bar.update(step - self._bar.n)

    def report(self, step: int, split: str, figures: Mapping[str, float]) -> None:
        """Records figures of a split (`train`, `validation`) after a step."""
        figures = dict(figures)
        if seconds := figures.get("seconds_per_step"):
            work = self._work_of_step(step - 1)
            figures["rows_per_second"] = work.rows / seconds
            figures["flops_per_second"] = work.flops / seconds
            if self._peak_flops:
                figures["share_of_peak"] = figures["flops_per_second"] / self._peak_flops
        if not self._enabled:
            return
        entry = {"step": step, "split": split, "time": round(time.time(), 3), **figures}
        self._append(json.dumps(entry) + "\n")
        assert self._events is not None
        with self._events.as_default(step):
            for name, value in figures.items():
                tf.summary.scalar(f"{split}/{name}", value)
        if split == "train":
            self._bar.set_postfix_str(_postfix(figures), refresh=False)
        else:
            shown = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
            self.say(f"step {step} {split}: {shown}")

    def _strike_out_after(self, step: int) -> None:
        if not self._metrics_path.exists():
            return
        kept = [e for e in read_metrics(self._metrics_path.parent) if e["step"] <= step]
        text = "".join(json.dumps(entry) + "\n" for entry in kept)
        if text == self._metrics_path.read_text():
            return
        if is_remote(self._metrics_path):
            self._metrics_path.write_text(text)
        else:
            write_atomically(Path(self._metrics_path), text)

    def _append(self, line: str) -> None:
        path = self._metrics_path
        if is_remote(path):  # object stores know no appending
            path.write_text((path.read_text() if path.exists() else "") + line)
            return
        with path.open("a") as file:
            file.write(line)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()
        if self._events is not None:
            self._events.close()


def _postfix(figures: Mapping[str, float]) -> str:
    parts = [f"loss {figures['loss']:.3f}"] if "loss" in figures else []
    parts.append(f"{figures['rows_per_second']:.4g} rows/s")
    if "share_of_peak" in figures:
        parts.append(f"{figures['share_of_peak']:.0%} of peak")
    if figures["loader_wait_share"] > 0.02:
        parts.append(f"waiting for data {figures['loader_wait_share']:.0%}")
    return ", ".join(parts)
