r"""SST-2: is a film praised?

Settings   ALBERT Table 14: rate 1e-5, dropout 0 in the encoder, 20935 steps of 32,
           about 10 epochs
Command    python -m experiments.finetune --config=experiments/configs/finetune/sst2.py \
               --config.data.dir=glue/SST-2 --config.run.init_from=runs/base \
               --workdir=runs/base-sst2
Expected   accuracy 96.9 with xxlarge (ALBERT Table 9)
"""

from ml_collections import ConfigDict

from experiments.cli.config_dicts import to_config_dict
from experiments.configs.finetune.recipes import table_14
from experiments.tasks.config import TaskName


def get_config() -> ConfigDict:
    return to_config_dict(
        table_14(
            TaskName.SST2,
            learning_rate=1e-5,
            batch_size=32,
            encoder_dropout=0.0,
            num_train_steps=20935,
            num_warmup_steps=1256,
            evaluate_every=1000,
        )
    )
