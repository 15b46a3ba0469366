r"""SQuAD 1.1: which words of a paragraph answer a question?

Settings   ALBERT Table 14: rate 5e-5, no dropout in the encoder, 3649 steps of 48, about 2 epochs,
           rows of 384; the head scores starts and ends apart
Command    python -m experiments.finetune --config=experiments/configs/finetune/squad_v1.py \
               --config.data.train_file=squad/train-v1.1.json \
               --config.data.dev_file=squad/dev-v1.1.json \
               --config.run.init_from=runs/base --workdir=runs/base-squad1
Expected   F1 89.3, exact match 82.3 with base after 125,000 steps (ALBERT Table 2); 94.8 and 89.3
           with xxlarge (Table 10)
"""

from ml_collections import ConfigDict

from albert_jax.training.config import OptimizerConfig, OptimizerName
from experiments.cli.config_dicts import to_config_dict
from experiments.tasks.config import FinetuneConfig, FinetuneRunConfig
from experiments.tasks.task_settings import (
    DropoutConfig,
    SpanConfig,
    SpanHead,
    TaskDataConfig,
    TaskName,
)


def get_config() -> ConfigDict:
    return to_config_dict(
        FinetuneConfig(
            task=TaskName.SQUAD,
            data=TaskDataConfig(max_seq_length=384),
            span=SpanConfig(head=SpanHead.PLAIN),
            dropout=DropoutConfig(encoder=0.0, classifier=0.1),
            optimizer=OptimizerConfig(
                name=OptimizerName.ADAMW,
                learning_rate=5e-5,
                num_train_steps=3649,
                num_warmup_steps=365,
                weight_decay=0.01,
                bias_correction=True,
            ),
            run=FinetuneRunConfig(evaluate_every=1000, checkpoint_every=1000),
            global_batch_size=48,
        )
    )
