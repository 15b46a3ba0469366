"""Fine-tuning of a classifier: examples a second, ours and a plain loop of transformers on torch.

Both train on real examples in a shuffled order. Our rows come as a run has them, batches of like
length that are padded to one of a few lengths; theirs are drawn at random and padded to the longest
of their batch, as a collator with dynamic padding does. Optimizer and clipping are alike.
"""

import itertools
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from albert_jax.tasks.batches import ClassificationBatch
from albert_jax.training.optimizer import make_optimizer
from albert_jax.training.parallel import compile_train_step, initialize_state, place_batch
from data_pipeline.errors import InputError
from experiments.benchmarks.report import rounded
from experiments.benchmarks.timing import Candidate, StepKind, time_candidates
from experiments.benchmarks.torch import transformers_config
from experiments.run.compiled_steps import CompiledSteps
from experiments.tasks.config import FinetuneConfig
from experiments.tasks.finetuning import Finetuning, open_finetuning


class Trainer(NamedTuple):
    """A way to fine-tune, and the batches that it goes round."""

    system: str
    run: Callable[[int], None]  # takes so many steps
    real: int  # pieces of all batches
    positions: int  # pieces and padding


def measure_finetuning(
    config: FinetuneConfig,
    *,
    num_batches: int,
    against_torch: bool,
    num_windows: int,
    window_seconds: float,
) -> list[dict[str, Any]]:
    """A row for each system. A window goes round the batches a whole number of times.

    Args:
        config: a fine-tuning of one text or pair of texts a row.
        num_batches: batches of each system.
        against_torch: also measure transformers.
        num_windows: windows of each.
        window_seconds: how long a window lasts at least, about.

    Raises:
        InputError: the task is of another kind, or torch is missing.
    """
    with tempfile.TemporaryDirectory() as directory:
        finetuning = open_finetuning(config, Path(directory) / "absent")
    first = next(finetuning.batches.batches(0))
    if not isinstance(first, ClassificationBatch):
        raise InputError(f"--what=finetune measures classifiers, the task is {config.task}")
    trainers = [_ours(finetuning, num_batches)]
    if against_torch:
        trainers.append(_theirs(finetuning, num_batches))

    def rounds(trainer: Trainer) -> Callable[[int], None]:
        return lambda times: trainer.run(times * num_batches)

    samples = time_candidates(
        [Candidate(t.system, StepKind.TRAIN, rounds(t), None, lambda: None) for t in trainers],
        num_windows=num_windows,
        window_seconds=window_seconds,
    )
    examples = num_batches * config.global_batch_size
    return [
        {
            "system": trainer.system,
            "task": str(config.task),
            "batch": config.global_batch_size,
            "batches": num_batches,
            "examples_per_second": rounded(examples / statistics.median(seconds)),
            "slowest": rounded(examples / max(seconds)),
            "fastest": rounded(examples / min(seconds)),
            "pieces_per_second": rounded(trainer.real / statistics.median(seconds)),
            "positions_filled": rounded(trainer.real / trainer.positions, 3),
            "windows": num_windows,
            "times_rival": _times(samples[-1], seconds) if against_torch else None,
        }
        for trainer, seconds in zip(trainers, samples, strict=True)
    ]


def _times(theirs: Sequence[float], ours: Sequence[float]) -> float | None:
    return rounded(statistics.median(t / o for t, o in zip(theirs, ours, strict=True)), 3)


def _ours(finetuning: Finetuning, num_batches: int) -> Trainer:
    config, task, mesh = finetuning.config, finetuning.task, finetuning.mesh
    optimizer = make_optimizer(config.optimizer, global_batch_size=config.global_batch_size)
    key = jax.random.key(config.seed)
    state = initialize_state(task.model.initialize, optimizer, key, mesh)
    host = list(itertools.islice(finetuning.batches.batches(0), num_batches))
    placed = [place_batch(batch, mesh) for batch in host]
    turns = itertools.cycle(placed)

    def step_of(accumulation_steps: int) -> jax.stages.Wrapped:
        return compile_train_step(
            task.objective.loss_fn,
            optimizer,
            state,
            mesh,
            weight_fn=task.objective.weight_fn,
            accumulation_steps=accumulation_steps,
        )

    steps = CompiledSteps(step_of, lambda _: [1], None, lambda _: None, lambda _: "")
    for batch in placed:
        steps.prepare(state, batch, key)

    def run(count: int) -> None:
        nonlocal state
        for _ in range(count):
            state, _ = steps(state, next(turns), key)
        jax.block_until_ready(state)

    masks = [np.asarray(batch.attention_mask) for batch in host]
    return Trainer("albert-jax", run, sum(int(m.sum()) for m in masks), sum(m.size for m in masks))


def _theirs(finetuning: Finetuning, num_batches: int) -> Trainer:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise InputError(
            f"--against=torch needs torch and transformers (make test-interop): {error}"
        ) from error
    config, train = finetuning.config, finetuning.task.train
    theirs = transformers_config(finetuning.start.model)
    theirs.classifier_dropout_prob = config.dropout.classifier
    torch.manual_seed(config.seed)
    model: Any = transformers.AlbertForSequenceClassification(theirs).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.optimizer.learning_rate, weight_decay=0.01, fused=True
    )
    order = np.random.default_rng(config.seed).permutation(len(train.lengths))
    size = config.global_batch_size
    tensors, real, positions = [], 0, 0
    for number in range(num_batches):
        rows = order[number * size : (number + 1) * size]
        longest = int(train.lengths[rows].max())
        batch = train.take(rows, length=longest, batch_size=size)
        real += int(batch["attention_mask"].sum())
        positions += batch["attention_mask"].size
        names = ("input_ids", "attention_mask", "token_type_ids", "labels")
        tensors.append({n: torch.tensor(batch[n].astype(np.int64)) for n in names})
    turns = itertools.cycle(tensors)

    def run(count: int) -> None:
        for _ in range(count):
            model(**next(turns)).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    run(1)
    return Trainer(f"transformers {transformers.__version__}", run, real, positions)
