r"""MNLI: does a sentence follow from another, matched and mismatched genres?

Settings   ALBERT Table 14: rate 3e-5, dropout 0 in the encoder, 10000 steps of 128,
           about 3.3 epochs
Command    python -m experiments.finetune --config=experiments/configs/finetune/mnli.py \
               --config.data.dir=glue/MNLI --config.run.init_from=runs/base \
               --workdir=runs/base-mnli
Expected   accuracy on dev_matched 90.8 with xxlarge (ALBERT Table 9)
"""

from ml_collections import ConfigDict

from experiments.cli.config_dicts import to_config_dict
from experiments.configs.finetune.recipes import table_14
from experiments.tasks.config import TaskName


def get_config() -> ConfigDict:
    return to_config_dict(
        table_14(
            TaskName.MNLI,
            learning_rate=3e-5,
            batch_size=128,
            encoder_dropout=0.0,
            num_train_steps=10000,
            num_warmup_steps=1000,
            evaluate_every=1000,
        )
    )
