r"""WNLI: is a pronoun resolved rightly?

Settings   ALBERT Table 14: rate 2e-5, dropout 0.1 in the encoder, 2000 steps of 16,
           about 50 epochs
Command    python -m experiments.finetune --config=experiments/configs/finetune/wnli.py \
               --config.data.dir=glue/WNLI --config.run.init_from=runs/base \
               --workdir=runs/base-wnli
Expected   accuracy 56.3 of always answering 0, which few models exceed
"""

from ml_collections import ConfigDict

from experiments.cli.config_dicts import to_config_dict
from experiments.configs.finetune.recipes import table_14
from experiments.tasks.config import TaskName


def get_config() -> ConfigDict:
    return to_config_dict(
        table_14(
            TaskName.WNLI,
            learning_rate=2e-5,
            batch_size=16,
            encoder_dropout=0.1,
            num_train_steps=2000,
            num_warmup_steps=250,
            evaluate_every=100,
        )
    )
