r"""STS-B: how alike are two sentences, from 0 to 5?

Settings   ALBERT Table 14: rate 2e-5, dropout 0 in the encoder, 3598 steps of 16,
           about 10 epochs
           MNLI's checkpoint is the paper's start: --config.run.init_from=runs/base-mnli
Command    python -m experiments.finetune --config=experiments/configs/finetune/stsb.py \
               --config.data.dir=glue/STS-B --config.run.init_from=runs/base \
               --workdir=runs/base-stsb
Expected   Pearson correlation 93.0 with xxlarge (ALBERT Table 9)
"""

from ml_collections import ConfigDict

from experiments.cli.config_dicts import to_config_dict
from experiments.configs.finetune.recipes import table_14
from experiments.tasks.config import TaskName


def get_config() -> ConfigDict:
    return to_config_dict(
        table_14(
            TaskName.STSB,
            learning_rate=2e-5,
            batch_size=16,
            encoder_dropout=0.0,
            num_train_steps=3598,
            num_warmup_steps=214,
            evaluate_every=250,
        )
    )
