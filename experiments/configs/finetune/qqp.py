r"""QQP: do two questions ask the same?

Settings   ALBERT Table 14: rate 5e-5, dropout 0.1 in the encoder, 14000 steps of 128,
           about 4.9 epochs
Command    python -m experiments.finetune --config=experiments/configs/finetune/qqp.py \
               --config.data.dir=glue/QQP --config.run.init_from=runs/base \
               --workdir=runs/base-qqp
Expected   accuracy 92.2 with xxlarge (ALBERT Table 9)
"""

from ml_collections import ConfigDict

from albert_jax.training.config import OptimizerConfig, OptimizerName
from experiments.cli.config_dicts import to_config_dict
from experiments.tasks.config import FinetuneConfig, FinetuneRunConfig
from experiments.tasks.task_settings import DropoutConfig, TaskDataConfig, TaskName


def get_config() -> ConfigDict:
    return to_config_dict(
        FinetuneConfig(
            task=TaskName.QQP,
            data=TaskDataConfig(max_seq_length=512),
            dropout=DropoutConfig(encoder=0.1, classifier=0.1),
            optimizer=OptimizerConfig(
                name=OptimizerName.ADAMW,
                learning_rate=5e-5,
                num_train_steps=14_000,
                num_warmup_steps=1000,
                weight_decay=0.01,
                bias_correction=True,
            ),
            run=FinetuneRunConfig(evaluate_every=1000, checkpoint_every=1000),
            global_batch_size=128,
        )
    )
