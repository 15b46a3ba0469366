"""A run that is started on one number of processes after another, and what it leaves."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from experiments.metrics.metrics_file import read_metrics
from tests.campaigns import ROOT
from tests.campaigns.forked import ForkedCommand
from tests.campaigns.joined_processes import JoinedProcesses, Rows

ROWS, SAVE_EVERY, JOIN_SECONDS = 16, 3, 60
SLOW_LOADER_SECONDS = "2"  # several times the time of a step
# A disturbed run sums in the same orders as undisturbed ones. Except by chance, its losses are
# therefore no farther from theirs than theirs from each other. No loss is exact beyond some digits
# of float32; a difference above `MOST` is not rounding.
FACTOR, LEAST, MOST = 10.0, 1e-6, 1e-3
_VOCABULARY = 400


def build_corpus(path: Path) -> None:
    """Build a corpus of the project's own documentation."""
    flags = [
        *(f"--input={ROOT}/docs/*.md", "--format=text", f"--vocab_size={_VOCABULARY}"),
        *("--held_out=0.1", "--num_processes=1", f"--output_dir={path}"),
    ]
    command = ForkedCommand(["data_pipeline.build_corpus", *flags], path.with_suffix(".txt"))
    if command.wait() != 0:
        raise RuntimeError(command.printed())


class ElasticRun:
    """A tiny pre-training that is started several times, on several numbers of processes.

    Args:
        place: directory of the corpus, the compiled programs, and what the starts leave.
        name: name of the run, whose workdir is in `place`.
        steps: number of steps, unless a start has another one.
    """

    def __init__(self, place: Path, name: str, steps: int) -> None:
        self.workdir, self.starts, self.steps = place / name, 0, steps
        self._place, self._name = place, name

    def start(self, processes: int, *flags: str, slow: int | None = None) -> JoinedProcesses:
        """Start it; one process may be so slow in loading batches that the others wait for it."""
        self.starts += 1
        return JoinedProcesses(
            [
                f"--config={ROOT}/tests/experiments/echo_config.py",
                f"--config.data.corpus_dir={self._place}/corpus",
                *(f"--workdir={self.workdir}", f"--join_seconds={JOIN_SECONDS}"),
                *(f"--config.model.vocab_size={_VOCABULARY}", f"--config.global_batch_size={ROWS}"),
                f"--config.optimizer.num_train_steps={self.steps}",
                # With dropout, each device would have its own masks.
                "--config.model.hidden_dropout_prob=0",
                # The rate of a step does not depend on which is the last one.
                *(
                    "--config.optimizer.schedule=inverse_root",
                    "--config.optimizer.num_warmup_steps=1",
                ),
                *("--config.optimizer.learning_rate=6e-3", "--config.run.log_every=1"),
                *("--config.run.evaluation_pairs=32", "--config.run.evaluate_every=50"),
                f"--config.run.checkpoint_every={SAVE_EVERY}",
                *flags,
            ],
            processes,
            self._place / f"{self._name}-{self.starts}",
            {"JAX_COMPILATION_CACHE_DIR": f"{self._place}/compiled"},
            {} if slow is None else {slow: {"SLOW_LOADER_SECONDS": SLOW_LOADER_SECONDS}},
        )

    def complete(self, processes: int, *flags: str) -> Rows:
        """Start it undisturbed, and return the rows of its steps.

        Raises:
            RuntimeError: it is not complete in the end.
        """
        with self.start(processes, *flags) as joined:
            statuses = joined.wait()
            if any(statuses):
                raise RuntimeError(f"undisturbed, they ended {statuses}: {joined.printed(0)}")
            taken = [joined.rows(number) for number in range(processes)]
        return {
            step: {number: digest for rows in taken for number, digest in rows[step].items()}
            for step in taken[0]
        }

    def saved(self) -> int:
        """Return the last step that was saved; 0 before the first one."""
        names = [path.name for path in (self.workdir / "checkpoints").glob("[0-9]*")]
        return max((int(name) for name in names if name.isdigit()), default=0)

    def losses(self) -> list[float]:
        """Return the loss of each step, from the metrics.

        Raises:
            ValueError: a step is missing there, or there twice.
        """
        entries = [entry for entry in read_metrics(self.workdir) if entry["split"] == "train"]
        found = Counter(entry["step"] for entry in entries)
        wrong = [step for step in range(1, self.steps + 1) if found[step] != 1]
        if wrong or len(found) != self.steps:
            raise ValueError(f"metrics.jsonl does not have these steps once: {wrong}")
        return [entry["loss"] for entry in entries]


def fault_of_losses(losses: Sequence[float], undisturbed: Sequence[Sequence[float]]) -> str | None:
    """Compare a loss curve with those of undisturbed runs; print how far they differ.

    The bound of a step is `FACTOR` times the largest difference of two undisturbed runs up to it,
    as a fraction of the loss: differences of rounding grow with the steps. It must be below `MOST`.
    """
    curves = np.asarray(undisturbed)
    pairs = [np.abs(one - other) / one for one, other in combinations(curves, 2)]
    between = np.maximum.accumulate(np.max(pairs, axis=0))
    bounds = FACTOR * between + LEAST
    found = np.max(np.abs(np.asarray(losses) - curves) / curves, axis=0)
    print("  steps       between undisturbed   bound   disturbed from undisturbed, relative")
    for part in np.array_split(np.arange(len(losses)), min(8, len(losses))):
        first, last = part[0], part[-1]
        print(
            f"  {first + 1:4}-{last + 1:<4}   {between[last]:18.1e} {bounds[first]:9.1e}   "
            f"{found[part].max():.1e}"
        )
    neighbors = np.median(np.abs(np.diff(curves[0])) / curves[0][1:])
    print(f"  a step with the batch of its neighbor would differ by {neighbors:.1e} (median)")
    if bounds.max() > MOST:
        return f"undisturbed runs differ by {between.max():.1e}, which is more than rounding"
    beyond = np.flatnonzero(found > bounds)
    return f"losses beyond the bound at steps {(beyond + 1).tolist()}" if beyond.size else None
