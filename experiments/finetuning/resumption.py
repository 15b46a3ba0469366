"""The check that a workdir holds the fine-tuning that is planned for it."""

import dataclasses
from pathlib import Path
from typing import Any

from data_pipeline.errors import InputError
from experiments.cli.config_flag import GivenConfig
from experiments.run.resumption import check_resumable
from experiments.tasks.config import FinetuneConfig


def check_same_finetuning(
    before: FinetuneConfig, given: GivenConfig[FinetuneConfig], *, workdir: str, init_flag: str
) -> dict[str, tuple[Any, Any]]:
    """Check that a workdir holds a given fine-tuning, from the same model.

    Values that a run takes from its data and model when it begins do not count as differences.
    These are the steps of a number of epochs, and a row length that was not given and was lowered
    to what the model reads.

    Args:
        before: the workdir's configuration.
        given: the fine-tuning.
        workdir: the workdir, for the error message.
        init_flag: the flag that names the model, for the error message.

    Returns:
        The differences, all of them allowed.

    Raises:
        InputError: the model differs, or anything other than `run` and the places of files does.
    """
    now = given.config
    if now.data.num_epochs is not None:
        counted = {
            name: getattr(before.optimizer, name)
            for name in ("num_train_steps", "num_warmup_steps")
        }
        now = dataclasses.replace(now, optimizer=dataclasses.replace(now.optimizer, **counted))
    rows = before.data.max_seq_length
    if "data.max_seq_length" not in given.named and rows < now.data.max_seq_length:
        now = dataclasses.replace(now, data=dataclasses.replace(now.data, max_seq_length=rows))
    changes = check_resumable(before, now, workdir=workdir)
    former, model = (Path(one.run.init_from or "").resolve() for one in (before, now))
    if former != model:
        raise InputError(
            f"--workdir={workdir} was fine-tuned from {before.run.init_from}, not from "
            f"{init_flag}={now.run.init_from}: choose another --workdir"
        )
    return changes
