r"""RTE: does a sentence follow from another?

Settings   ALBERT Table 14: rate 3e-5, dropout 0.1 in the encoder, 800 steps of 32,
           about 10 epochs
           The paper starts from MNLI's checkpoint: --config.run.init_from=runs/base-mnli
Command    python -m experiments.finetune --config=experiments/configs/finetune/rte.py \
               --config.data.dir=glue/RTE --config.run.init_from=runs/base \
               --workdir=runs/base-rte
Expected   accuracy 89.2 with xxlarge (ALBERT Table 9)
"""

from ml_collections import ConfigDict

from albert_jax.training.config import OptimizerConfig, OptimizerName
from experiments.cli.config_dicts import to_config_dict
from experiments.tasks.config import FinetuneConfig, FinetuneRunConfig
from experiments.tasks.task_settings import DropoutConfig, TaskDataConfig, TaskName


def get_config() -> ConfigDict:
    return to_config_dict(
        FinetuneConfig(
            task=TaskName.RTE,
            data=TaskDataConfig(max_seq_length=512),
            dropout=DropoutConfig(encoder=0.1, classifier=0.1),
            optimizer=OptimizerConfig(
                name=OptimizerName.ADAMW,
                learning_rate=3e-5,
                num_train_steps=800,
                num_warmup_steps=200,
                weight_decay=0.01,
                bias_correction=True,
            ),
            run=FinetuneRunConfig(evaluate_every=50, checkpoint_every=50),
            global_batch_size=32,
        )
    )
