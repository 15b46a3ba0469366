r"""CoLA: is a sentence acceptable English?

Settings   ALBERT Table 14: rate 1e-5, dropout 0 in the encoder, 5336 steps of 16,
           about 10 epochs
Command    python -m experiments.finetune --config=experiments/configs/finetune/cola.py \
               --config.data.dir=glue/CoLA --config.run.init_from=runs/base \
               --workdir=runs/base-cola
Expected   Matthews correlation 71.4 with xxlarge (ALBERT Table 9)
"""

from ml_collections import ConfigDict

from experiments.cli.config_dicts import to_config_dict
from experiments.configs.finetune.recipes import table_14
from experiments.tasks.config import TaskName


def get_config() -> ConfigDict:
    return to_config_dict(
        table_14(
            TaskName.COLA,
            learning_rate=1e-5,
            batch_size=16,
            encoder_dropout=0.0,
            num_train_steps=5336,
            num_warmup_steps=320,
            evaluate_every=250,
        )
    )
