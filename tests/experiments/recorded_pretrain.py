"""The command `experiments.pretrain`, with the hash of every batch written to `$BATCH_HASHES`."""

import hashlib
import os
import runpy
from typing import Any

import numpy as np

from albert_jax.training import loop as training_loop
from albert_jax.training.train_step import TrainState

train = training_loop.train


def train_and_record(state: TrainState, train_step: Any, *args: Any, **kwargs: Any) -> TrainState:
    step = int(state.step)
    with open(os.environ["BATCH_HASHES"], "a", encoding="utf-8") as file:

        def recorded_step(state: TrainState, batch: Any, key: Any) -> Any:
            nonlocal step
            step += 1
            content = b"".join(np.asarray(field).tobytes() for field in batch)
            print(step, hashlib.sha256(content).hexdigest(), file=file, flush=True)
            return train_step(state, batch, key)

        return train(state, recorded_step, *args, **kwargs)


training_loop.train = train_and_record
runpy.run_module("experiments.pretrain", run_name="__main__", alter_sys=True)
