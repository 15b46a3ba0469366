r"""Words with tags in CoNLL's columns: entities, parts of speech.

Settings   rate 2e-5, batches of 32, 10 epochs, a tenth of them warm-up
Command    python -m experiments.finetune --config=experiments/configs/finetune/tagging.py \
               --config.data.train_file=conll/eng.train --config.data.dev_file=conll/eng.testa \
               --config.run.init_from=runs/base --workdir=runs/base-conll
Expected   the paper reports none
"""

from ml_collections import ConfigDict

from albert_jax.training.config import OptimizerConfig, OptimizerName
from experiments.cli.config_dicts import to_config_dict
from experiments.tasks.config import FinetuneConfig, FinetuneRunConfig
from experiments.tasks.task_settings import DropoutConfig, TaskDataConfig, TaskName


def get_config() -> ConfigDict:
    return to_config_dict(
        FinetuneConfig(
            task=TaskName.TAGGING,
            data=TaskDataConfig(max_seq_length=256, num_epochs=10.0),
            dropout=DropoutConfig(classifier=0.1),
            optimizer=OptimizerConfig(
                name=OptimizerName.ADAMW,
                learning_rate=2e-5,
                # The epochs decide how many steps there are; a tenth of them is warm-up.
                num_train_steps=10_000,
                num_warmup_steps=1000,
                weight_decay=0.01,
                bias_correction=True,
            ),
            run=FinetuneRunConfig(evaluate_every=500, checkpoint_every=500),
            global_batch_size=32,
        )
    )
