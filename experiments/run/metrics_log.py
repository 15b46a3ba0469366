"""Metrics logging: a progress bar, `metrics.jsonl`, TensorBoard events and log lines."""

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
    """Read the entries of a workdir's metrics file in order of steps; none where it is missing.

    Example: a file of ``{"step": 20, "split": "train", "loss": 9.1}`` and the part ``{"step": 4``
    of a line, left by a run that was killed, has one entry.
    """
    path = epath.Path(workdir) / METRICS_FILE
    if not path.exists():
        return []
    whole_lines = path.read_text().split("\n")[:-1]
    return [json.loads(line) for line in whole_lines]


class StepWork(NamedTuple):
    """The work of a step."""

    rows: int
    flops: float  # of products, forward and backward


class RunLog:
    """The log of a run.

    A resumed run first removes the metrics of steps that it repeats, so that the metrics file has
    each once.

    Args:
        workdir: the directory of the files; local or remote.
        first_step: steps that were taken before and are not repeated.
        num_steps: steps of the whole run.
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
        self._metrics_path = epath.Path(workdir) / METRICS_FILE
        self._work_of_step = work_of_step
        self._peak_flops = peak_flops
        self._enabled = enabled
        if enabled:
            self._remove_after(first_step)
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
        """Print a line above the progress bar."""
        if self._enabled:
            tqdm.write(text, file=sys.stderr)

    def advance(self, step: int) -> None:
        """Move the progress bar."""
        self._bar.update(step - self._bar.n)

    def report(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Log metrics of a split (`train`, `validation`, `optimizer`) after a step."""
        metrics = dict(metrics)
        if seconds := metrics.get("seconds_per_step"):
            work = self._work_of_step(step - 1)
            metrics["rows_per_second"] = work.rows / seconds
            metrics["flops_per_second"] = work.flops / seconds
            if self._peak_flops:
                metrics["share_of_peak"] = metrics["flops_per_second"] / self._peak_flops
        if not self._enabled:
            return
        entry = {"step": step, "split": split, "time": round(time.time(), 3), **metrics}
        self._append(json.dumps(entry) + "\n")
        assert self._events is not None
        with self._events.as_default(step):
            for name, value in metrics.items():
                tf.summary.scalar(f"{split}/{name}", value)
        if split == "train":
            self._bar.set_postfix_str(_postfix(metrics), refresh=False)
        else:
            shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            self.say(f"step {step} {split}: {shown}")

    def _remove_after(self, step: int) -> None:
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
        if is_remote(path):  # object stores cannot append
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


def _postfix(metrics: Mapping[str, float]) -> str:
    parts = [f"loss {metrics['loss']:.3f}"] if "loss" in metrics else []
    parts.append(f"{metrics['rows_per_second']:.4g} rows/s")
    if "share_of_peak" in metrics:
        parts.append(f"{metrics['share_of_peak']:.0%} of peak")
    if metrics["loader_wait_share"] > 0.02:
        parts.append(f"waiting for data {metrics['loader_wait_share']:.0%}")
    return ", ".join(parts)
