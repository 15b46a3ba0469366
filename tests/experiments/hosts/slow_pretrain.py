"""The command `experiments.pretrain`, whose loader takes `$LOADER_SECONDS` longer for a batch."""

import os
import runpy
import time
from typing import Any

from albert_jax.devices.prefetch import BatchQueue

load = BatchQueue._load


def load_slowly(queue: BatchQueue) -> Any:
    batches = queue._batches

    def late() -> Any:
        time.sleep(float(os.environ["LOADER_SECONDS"]))
        yield next(batches)

    queue._batches = late()
    try:
        return load(queue)
    finally:
        queue._batches = batches


BatchQueue._load = load_slowly  # type: ignore[method-assign]
runpy.run_module("experiments.pretrain", run_name="__main__", alter_sys=True)
