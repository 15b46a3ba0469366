r"""RTE: does a sentence follow from another?

Settings   ALBERT Table 14: rate 3e-5, dropout 0.1 in the encoder, 800 steps of 32,
           about 10 epochs
           MNLI's checkpoint is the paper's start: --config.run.init_from=runs/base-mnli
Command    python -m experiments.finetune --config=experiments/configs/finetune/rte.py \
               --config.data.dir=glue/RTE --config.run.init_from=runs/base \
               --workdir=runs/base-rte
Expected   accuracy 89.2 with xxlarge (ALBERT Table 9)
"""

from ml_collections import ConfigDict

from experiments.cli.config_dicts import to_config_dict
from experiments.configs.finetune.recipes import table_14
from experiments.tasks.config import TaskName


def get_config() -> ConfigDict:
    return to_config_dict(
        table_14(
            TaskName.RTE,
            learning_rate=3e-5,
            batch_size=32,
            encoder_dropout=0.1,
            num_train_steps=800,
            num_warmup_steps=200,
            evaluate_every=50,
        )
    )
