r"""RACE: which of four options answers a question about a passage?

Settings   ALBERT Table 14: rate 2e-5, dropout 0.1 in the encoder, 12,000 steps of 32, about 4.4
           epochs. Version 2 of the published models needs `race_v2.py`
Command    python -m experiments.finetune --config=experiments/configs/finetune/race.py \
               --config.data.dir=race --config.run.init_from=runs/base --workdir=runs/base-race
Expected   accuracy 64.0 with base after 125,000 steps (ALBERT Table 2), 86.5 with xxlarge (89.0 on
           middle, 85.5 on high; Table 10)
"""

from ml_collections import ConfigDict

from albert_jax.training.config import OptimizerConfig, OptimizerName
from experiments.cli.config_dicts import to_config_dict
from experiments.tasks.config import FinetuneConfig, FinetuneRunConfig
from experiments.tasks.task_settings import DropoutConfig, TaskDataConfig, TaskName


def get_config() -> ConfigDict:
    return to_config_dict(
        FinetuneConfig(
            task=TaskName.RACE,
            data=TaskDataConfig(max_seq_length=512),
            dropout=DropoutConfig(encoder=0.1, classifier=0.1),
            optimizer=OptimizerConfig(
                name=OptimizerName.ADAMW,
                learning_rate=2e-5,
                num_train_steps=12_000,
                num_warmup_steps=1000,
                weight_decay=0.01,
                bias_correction=True,
            ),
            run=FinetuneRunConfig(evaluate_every=1000, checkpoint_every=1000),
            global_batch_size=32,
        )
    )
