r"""Words with tags in CoNLL's columns: entities, parts of speech.

Settings   rate 2e-5, batches of 32, 10 epochs, a tenth of them warm-up
Command    python -m experiments.finetune --config=experiments/configs/finetune/tagging.py \
               --config.data.train_file=conll/eng.train --config.data.dev_file=conll/eng.testa \
               --config.run.init_from=runs/base --workdir=runs/base-conll
Expected   the paper has no figure
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
            task=TaskName.TAGGING,
            data=TaskDataConfig(max_seq_length=256, num_epochs=10.0),
            # Of the steps that the epochs make, a tenth is warm-up.
            optimizer=dataclasses.replace(
                finetuning_optimizer(), num_train_steps=10_000, num_warmup_steps=1_000
            ),
        )
    )
