r"""STS-B: how alike are two sentences, from 0 to 5?

Settings   ALBERT Table 14: rate 2e-5, dropout 0 in the encoder, 3598 steps of 16,
           about 10 epochs
           The paper starts from MNLI's checkpoint: --config.run.init_from=runs/base-mnli
Command    python -m experiments.finetune --config=experiments/configs/finetune/stsb.py \
               --config.data.dir=glue/STS-B --config.run.init_from=runs/base \
               --workdir=runs/base-stsb
Expected   Pearson correlation 93.0 with xxlarge (ALBERT Table 9)
"""

from ml_collections import ConfigDict

from albert_jax.training.config import OptimizerConfig, OptimizerName
from experiments.cli.config_dicts import to_config_dict
from experiments.tasks.config import FinetuneConfig, FinetuneRunConfig
from experiments.tasks.task_settings import DropoutConfig, TaskDataConfig, TaskName


def get_config() -> ConfigDict:
    return to_config_dict(
        FinetuneConfig(
            task=TaskName.STSB,
            data=TaskDataConfig(max_seq_length=512),
            dropout=DropoutConfig(encoder=0.0, classifier=0.1),
            optimizer=OptimizerConfig(
                name=OptimizerName.ADAMW,
                learning_rate=2e-5,
                num_train_steps=3598,
                num_warmup_steps=214,
                weight_decay=0.01,
                bias_correction=True,
            ),
            run=FinetuneRunConfig(evaluate_every=250, checkpoint_every=250),
            global_batch_size=16,
        )
    )
