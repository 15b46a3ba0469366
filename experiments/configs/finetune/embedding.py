r"""Vectors of texts, near each other where texts are alike: pairs or triplets of one's own.

Settings   InfoNCE with the batch's other texts as negatives, temperature 0.05, rate 3e-5, batches
           of 64, 3 epochs (Gao et al. 2021, Appendix A; their supervised batches are 512)
Command    python -m experiments.finetune --config=experiments/configs/finetune/embedding.py \
               --config.data.train_file=faq.csv --config.data.dev_file=faq_dev.csv \
               --config.data.text_column=question --config.data.text_pair_column=answer \
               --config.run.init_from=runs/base --workdir=runs/base-faq
Expected   depends on the pairs; the report ranks each positive among 100
"""

from ml_collections import ConfigDict

from albert_jax.training.config import OptimizerConfig, OptimizerName
from experiments.cli.config_dicts import to_config_dict
from experiments.tasks.config import FinetuneConfig, FinetuneRunConfig
from experiments.tasks.task_settings import TaskDataConfig, TaskName


def get_config() -> ConfigDict:
    return to_config_dict(
        FinetuneConfig(
            task=TaskName.EMBEDDING,
            data=TaskDataConfig(max_seq_length=128, num_epochs=3.0),
            optimizer=OptimizerConfig(
                name=OptimizerName.ADAMW,
                learning_rate=3e-5,
                # The epochs decide how many steps there are; a tenth of them is warm-up.
                num_train_steps=10_000,
                num_warmup_steps=1000,
                weight_decay=0.01,
                bias_correction=True,
            ),
            run=FinetuneRunConfig(evaluate_every=250, checkpoint_every=250),
            global_batch_size=64,
        )
    )
