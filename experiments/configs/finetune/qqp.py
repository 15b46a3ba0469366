r"""QQP: do two questions ask the same?

Settings   ALBERT Table 14: rate 5e-5, dropout 0.1 in the encoder, 14000 steps of 128,
           about 4.9 epochs
Command    python -m experiments.finetune --config=experiments/configs/finetune/qqp.py \
               --config.data.dir=glue/QQP --config.run.init_from=runs/base \
               --workdir=runs/base-qqp
Expected   accuracy 92.2 with xxlarge (ALBERT Table 9)
"""

from ml_collections import ConfigDict

from experiments.cli.config_dicts import to_config_dict
from experiments.configs.finetune.recipes import table_14
from experiments.tasks.config import TaskName


def get_config() -> ConfigDict:
    return to_config_dict(
        table_14(
            TaskName.QQP,
            learning_rate=5e-5,
            batch_size=128,
            encoder_dropout=0.1,
            num_train_steps=14000,
            num_warmup_steps=1000,
            evaluate_every=1000,
        )
    )
