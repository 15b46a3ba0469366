r"""QNLI: does a sentence answer a question?

Settings   ALBERT Table 14: rate 1e-5, dropout 0 in the encoder, 33112 steps of 32,
           about 10 epochs
Command    python -m experiments.finetune --config=experiments/configs/finetune/qnli.py \
               --config.data.dir=glue/QNLI --config.run.init_from=runs/base \
               --workdir=runs/base-qnli
Expected   accuracy 95.3 with xxlarge (ALBERT Table 9)
"""

from ml_collections import ConfigDict

from experiments.cli.config_dicts import to_config_dict
from experiments.configs.finetune.recipes import table_14
from experiments.tasks.config import TaskName


def get_config() -> ConfigDict:
    return to_config_dict(
        table_14(
            TaskName.QNLI,
            learning_rate=1e-5,
            batch_size=32,
            encoder_dropout=0.0,
            num_train_steps=33112,
            num_warmup_steps=1986,
            evaluate_every=1000,
        )
    )
