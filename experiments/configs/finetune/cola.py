r"""CoLA: is a sentence acceptable English?

Settings   ALBERT Table 14: rate 1e-5, dropout 0 in the encoder, 5336 steps of 16,
           about 10 epochs
Command    python -m experiments.finetune --config=experiments/configs/finetune/cola.py \
               --config.data.dir=glue/CoLA --config.run.init_from=runs/base \
               --workdir=runs/base-cola
Expected   Matthews correlation 71.4 with xxlarge (ALBERT Table 9)
"""

from ml_collections import ConfigDict

from albert_jax.training.config import OptimizerConfig, OptimizerName
from experiments.cli.config_dicts import to_config_dict
from experiments.tasks.config import FinetuneConfig, FinetuneRunConfig
from experiments.tasks.task_settings import DropoutConfig, TaskDataConfig, TaskName


def get_config() -> ConfigDict:
    return to_config_dict(
        FinetuneConfig(
            task=TaskName.COLA,
            data=TaskDataConfig(max_seq_length=512),
            dropout=DropoutConfig(encoder=0.0, classifier=0.1),
            optimizer=OptimizerConfig(
                name=OptimizerName.ADAMW,
                learning_rate=1e-5,
                num_train_steps=5336,
                num_warmup_steps=320,
                weight_decay=0.01,
                bias_correction=True,
            ),
            run=FinetuneRunConfig(evaluate_every=250, checkpoint_every=250),
            global_batch_size=16,
        )
    )
