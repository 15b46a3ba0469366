r"""MNLI: does a sentence follow from another, matched and mismatched genres?

Settings   ALBERT Table 14: rate 3e-5, dropout 0 in the encoder, 10000 steps of 128,
           about 3.3 epochs
Command    python -m experiments.finetune --config=experiments/configs/finetune/mnli.py \
               --config.data.dir=glue/MNLI --config.run.init_from=runs/base \
               --workdir=runs/base-mnli
Expected   accuracy on dev_matched 90.8 with xxlarge (ALBERT Table 9)
"""

from ml_collections import ConfigDict

from albert_jax.training.config import OptimizerConfig, OptimizerName
from experiments.cli.config_dicts import to_config_dict
from experiments.tasks.config import FinetuneConfig, FinetuneRunConfig
from experiments.tasks.task_settings import DropoutConfig, TaskDataConfig, TaskName


def get_config() -> ConfigDict:
    return to_config_dict(
        FinetuneConfig(
            task=TaskName.MNLI,
            data=TaskDataConfig(max_seq_length=512),
            dropout=DropoutConfig(encoder=0.0, classifier=0.1),
            optimizer=OptimizerConfig(
                name=OptimizerName.ADAMW,
                learning_rate=3e-5,
                num_train_steps=10_000,
                num_warmup_steps=1000,
                weight_decay=0.01,
                bias_correction=True,
            ),
            run=FinetuneRunConfig(evaluate_every=1000, checkpoint_every=1000),
            global_batch_size=128,
        )
    )
