r"""SQuAD 1.1: which words of a paragraph answer a question?

Settings   ALBERT Table 14: rate 5e-5, no dropout in the encoder, 3649 steps of 48, about 2 epochs,
           rows of 384; the head scores starts and ends apart
Command    python -m experiments.finetune --config=experiments/configs/finetune/squad_v1.py \
               --config.data.train_file=squad/train-v1.1.json \
               --config.data.dev_file=squad/dev-v1.1.json \
               --config.run.init_from=runs/base --workdir=runs/base-squad1
Expected   F1 89.3, exact match 82.3 with base after 125,000 steps (ALBERT Table 2); 94.8 and 89.3
           with xxlarge (Table 10)
"""

import dataclasses

from ml_collections import ConfigDict

from experiments.cli.config_dicts import to_config_dict
from experiments.configs.finetune.recipes import table_14
from experiments.tasks.config import SpanConfig, SpanHead, TaskName


def get_config() -> ConfigDict:
    recipe = table_14(
        TaskName.SQUAD,
        learning_rate=5e-5,
        batch_size=48,
        encoder_dropout=0.0,
        num_train_steps=3649,
        num_warmup_steps=365,
        evaluate_every=1000,
        max_seq_length=384,
    )
    return to_config_dict(dataclasses.replace(recipe, span=SpanConfig(head=SpanHead.PLAIN)))
