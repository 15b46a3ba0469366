"""Speed of fine-tuning a classifier, compared with a plain loop of transformers on torch.

Both train on real examples in shuffled order. As in a run, our rows are batched by length and
padded to one of a few lengths. Theirs are sampled at random and padded to the longest of their
batch, as a collator with dynamic padding does. Optimizer and clipping are the same.
"""

import itertools
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from albert_jax.devices.sharding import place_batch
from albert_jax.tasks.batches import ClassificationBatch
from albert_jax.training.optimizer import make_optimizer
from albert_jax.training.parallel import compile_train_step, initialize_state
from data_pipeline.errors import InputError
from experiments.benchmarks.report import rounded
from experiments.benchmarks.timing import Candidate, StepKind, Windows, speedup, time_candidates
from experiments.benchmarks.torch import import_torch, transformers_config
from experiments.finetuning.open_run import Finetuning, open_finetuning
from experiments.run.compiler_options import compiler_options
from experiments.tasks.config import FinetuneConfig


class Trainer(NamedTuple):
    """A way to fine-tune, and the batches that it cycles through."""

    system: str
    run: Callable[[int], None]  # takes this many steps
    tokens: int  # of all batches
    positions: int  # tokens and padding


def measure_finetuning(
    config: FinetuneConfig, *, num_batches: int, against_torch: bool, windows: Windows
) -> list[dict[str, Any]]:
    """Return a row of a table for each system. A window is a whole number of cycles.

    Args:
        config: a run on rows of a text or of a pair of texts.
        num_batches: batches of each system.
        against_torch: also measure transformers.
        windows: how long each is timed.

    Raises:
        InputError: the task is of another kind, or torch is missing.
    """
    with tempfile.TemporaryDirectory() as directory:
        finetuning = open_finetuning(config, Path(directory) / "absent")
    trainers = [_ours(finetuning, num_batches)]
    if against_torch:
        trainers.append(_theirs(finetuning, num_batches))

    def cycles(trainer: Trainer) -> Callable[[int], None]:
        return lambda times: trainer.run(times * num_batches)

    candidates = [Candidate(t.system, StepKind.TRAIN, cycles(t)) for t in trainers]
    samples = time_candidates(candidates, windows)
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
            "pieces_per_second": rounded(trainer.tokens / statistics.median(seconds)),
            "positions_filled": rounded(trainer.tokens / trainer.positions, 3),
            "windows": windows.number,
            "times_rival": speedup(samples[-1], seconds) if against_torch else None,
        }
        for trainer, seconds in zip(trainers, samples, strict=True)
    ]


def _ours(finetuning: Finetuning, num_batches: int) -> Trainer:
    config, task, mesh = finetuning.config, finetuning.task, finetuning.mesh
    host = list(itertools.islice(finetuning.batches.batches(0), num_batches))
    if not isinstance(host[0], ClassificationBatch):
        raise InputError(f"--what=finetune measures classifiers, the task is {config.task}")
    optimizer = make_optimizer(config.optimizer, global_batch_size=config.global_batch_size)
    key = jax.random.key(config.seed)
    state = initialize_state(task.model.initialize, optimizer, key, mesh)
    placed = [place_batch(batch, mesh) for batch in host]
    cycle = itertools.cycle(placed)
    step = compile_train_step(
        task.objective.loss_fn,
        optimizer,
        state,
        mesh,
        weight_fn=task.objective.weight_fn,
        compiler_options=compiler_options(config.run),
    )
    compiled = {
        batch.input_ids.shape: step.lower(state, batch, key).compile()
        for batch in {batch.input_ids.shape: batch for batch in placed}.values()
    }

    def run(count: int) -> None:
        nonlocal state
        for batch in itertools.islice(cycle, count):
            state, _ = compiled[batch.input_ids.shape](state, batch, key)
        jax.block_until_ready(state)

    masks = [np.asarray(batch.attention_mask) for batch in host]
    return Trainer("albert-jax", run, sum(int(m.sum()) for m in masks), sum(m.size for m in masks))


def _theirs(finetuning: Finetuning, num_batches: int) -> Trainer:
    torch, transformers = import_torch()
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
    tensors, tokens, positions = [], 0, 0
    for number in range(num_batches):
        rows = order[number * size : (number + 1) * size]
        longest = int(train.lengths[rows].max())
        batch = train.take(rows, length=longest, batch_size=size)
        tokens += int(batch["attention_mask"].sum())
        positions += batch["attention_mask"].size
        names = ("input_ids", "attention_mask", "token_type_ids", "labels")
        tensors.append({n: torch.tensor(batch[n].astype(np.int64)) for n in names})
    cycle = itertools.cycle(tensors)

    def run(count: int) -> None:
        for batch in itertools.islice(cycle, count):
            model(**batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    run(1)
    return Trainer(f"transformers {transformers.__version__}", run, tokens, positions)
