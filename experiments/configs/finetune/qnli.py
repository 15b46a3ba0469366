r"""QNLI: does a sentence answer a question?

Settings   ALBERT Table 14: rate 1e-5, dropout 0 in the encoder, 33112 steps of 32,
           about 10 epochs
Command    python -m experiments.finetune --config=experiments/configs/finetune/qnli.py \
               --config.data.dir=glue/QNLI --config.run.init_from=runs/base \
               --workdir=runs/base-qnli
Expected   accuracy 95.3 with xxlarge (ALBERT Table 9)
"""

from ml_collections import ConfigDict

from albert_jax.training.config import OptimizerConfig, OptimizerName
from experiments.cli.config_dicts import to_config_dict
from experiments.tasks.config import FinetuneConfig, FinetuneRunConfig
from experiments.tasks.task_settings import DropoutConfig, TaskDataConfig, TaskName


def get_config() -> ConfigDict:
    return to_config_dict(
        FinetuneConfig(
            task=TaskName.QNLI,
            data=TaskDataConfig(max_seq_length=512),
            dropout=DropoutConfig(encoder=0.0, classifier=0.1),
            optimizer=OptimizerConfig(
                name=OptimizerName.ADAMW,
                learning_rate=1e-5,
                num_train_steps=33_112,
                num_warmup_steps=1986,
                weight_decay=0.01,
                bias_correction=True,
            ),
            run=FinetuneRunConfig(evaluate_every=1000, checkpoint_every=1000),
            global_batch_size=32,
        )
    )
