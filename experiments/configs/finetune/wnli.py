r"""WNLI: is a pronoun resolved rightly?

Settings   ALBERT Table 14: rate 2e-5, dropout 0.1 in the encoder, 2000 steps of 16,
           about 50 epochs
Command    python -m experiments.finetune --config=experiments/configs/finetune/wnli.py \
               --config.data.dir=glue/WNLI --config.run.init_from=runs/base \
               --workdir=runs/base-wnli
Expected   accuracy 56.3 of always answering 0, which few models exceed
"""

from ml_collections import ConfigDict

from albert_jax.training.config import OptimizerConfig, OptimizerName
from experiments.cli.config_dicts import to_config_dict
from experiments.tasks.config import FinetuneConfig, FinetuneRunConfig
from experiments.tasks.task_settings import DropoutConfig, TaskDataConfig, TaskName


def get_config() -> ConfigDict:
    return to_config_dict(
        FinetuneConfig(
            task=TaskName.WNLI,
            data=TaskDataConfig(max_seq_length=512),
            dropout=DropoutConfig(encoder=0.1, classifier=0.1),
            optimizer=OptimizerConfig(
                name=OptimizerName.ADAMW,
                learning_rate=2e-5,
                num_train_steps=2000,
                num_warmup_steps=250,
                weight_decay=0.01,
                bias_correction=True,
            ),
            run=FinetuneRunConfig(evaluate_every=100, checkpoint_every=100),
            global_batch_size=16,
        )
    )
