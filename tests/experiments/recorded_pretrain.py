"""The command `experiments.pretrain`, with the hash of every row that this process loads.

For each step, before it is taken, a line is written to `$BATCH_HASHES`: the step, and the number in
the batch and the hash of each row, as in ``7 4:09c1… 5:e3b0…``. With `$SLOW_LOADER_SECONDS` each
batch takes that much longer to load.
"""

import hashlib
import os
import runpy
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from albert_jax.batch import PretrainingBatch
from albert_jax.training.train_step import TrainState
from experiments.run import training

train, read_batch = training.train, PretrainingBatch.from_numpy


def hash_rows(batch: Any) -> Iterator[tuple[int, str]]:
    """Yield the number and the hash of each row of a global batch on this process's devices."""
    for shards in zip(*(field.addressable_shards for field in batch), strict=True):
        first = shards[0].index[0].start or 0
        for number, fields in enumerate(zip(*(np.asarray(s.data) for s in shards), strict=True)):
            content = b"".join(field.tobytes() for field in fields)
            yield first + number, hashlib.sha256(content).hexdigest()


def train_and_record(state: TrainState, train_step: Any, *args: Any, **kwargs: Any) -> TrainState:
    step = int(state.step)
    with open(os.environ["BATCH_HASHES"], "a", encoding="utf-8") as file:

        def recorded_step(state: TrainState, batch: Any, key: Any) -> Any:
            nonlocal step
            step += 1
            rows = sorted(hash_rows(batch))
            print(step, *(f"{row}:{digest}" for row, digest in rows), file=file, flush=True)
            return train_step(state, batch, key)

        return train(state, recorded_step, *args, **kwargs)


def read_slowly(arrays: dict[str, np.ndarray]) -> PretrainingBatch:
    time.sleep(float(os.environ.get("SLOW_LOADER_SECONDS", 0)))
    return read_batch(arrays)


training.train = train_and_record
PretrainingBatch.from_numpy = staticmethod(read_slowly)
sys.modules.pop("experiments.pretrain", None)  # of a process that has imported all commands
runpy.run_module("experiments.pretrain", run_name="__main__", alter_sys=True)
