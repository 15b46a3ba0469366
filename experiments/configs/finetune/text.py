r"""One's own texts with labels: classes, or scores with --config.data.problem_type=regression.

Settings   rate 2e-5, batches of 32, 10 epochs, a tenth of them warm-up (Mosbach et al. 2021)
Command    python -m experiments.finetune --config=experiments/configs/finetune/text.py \
               --config.data.train_file=mails.csv --config.data.dev_file=mails_dev.csv \
               --config.data.text_column=body --config.data.label_column=folder \
               --config.run.init_from=runs/base --workdir=runs/base-mails
Expected   whatever the labels are worth; the report compares with the most frequent one
"""

import dataclasses

from ml_collections import ConfigDict

from experiments.cli.config_dicts import to_config_dict
from experiments.tasks.config import (
    FinetuneConfig,
    TaskDataConfig,
    TaskName,
    finetuning_optimizer,
)


def get_config() -> ConfigDict:
    return to_config_dict(
        FinetuneConfig(
            task=TaskName.TEXT,
            data=TaskDataConfig(max_seq_length=256, num_epochs=10.0),
            # Of the steps that the epochs make, a tenth is warm-up.
            optimizer=dataclasses.replace(
                finetuning_optimizer(), num_train_steps=10_000, num_warmup_steps=1_000
            ),
        )
    )
