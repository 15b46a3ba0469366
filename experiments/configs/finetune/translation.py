r"""Translation: a decoder writes in one language what ALBERT reads in another.

Settings   warm-started encoder, fresh decoder of as many layers (Rothe et al. 2020, §3); AdamW at
           5e-4, linear decay, label smoothing 0.1, 10000 steps of 128 pairs; beams of 5 at the end
Command    python -m experiments.finetune --config=experiments/configs/finetune/translation.py \
               --config.data.train_file=train.en --config.targets.train_file=train.de \
               --config.data.dev_file=val.en --config.targets.dev_file=val.de \
               --config.run.init_from=runs/base --workdir=runs/base-en-de
Expected   BLEU 37.9 on the captions of Multi30k (validation, English to German) by 3 layers of 128
           that started at random; see RESULTS.md
"""

from ml_collections import ConfigDict

from albert_jax.generation.config import GenerationOptions
from albert_jax.training.config import OptimizerConfig, OptimizerName, ScheduleName
from data_pipeline.generation.config import TargetsConfig
from experiments.cli.config_dicts import to_config_dict
from experiments.tasks.config import FinetuneConfig, FinetuneRunConfig
from experiments.tasks.task_settings import DropoutConfig, TaskDataConfig, TaskName


def get_config() -> ConfigDict:
    return to_config_dict(
        FinetuneConfig(
            task=TaskName.TRANSLATION,
            data=TaskDataConfig(max_seq_length=128),
            targets=TargetsConfig(max_length=128, vocab_size=8000, label_smoothing=0.1),
            decoding=GenerationOptions(num_beams=5, max_new_tokens=128),
            dropout=DropoutConfig(encoder=0.1),
            optimizer=OptimizerConfig(
                name=OptimizerName.ADAMW,
                learning_rate=5e-4,
                schedule=ScheduleName.POLY,
                num_train_steps=10_000,
                num_warmup_steps=1000,
                weight_decay=0.01,
                beta_2=0.98,
                bias_correction=True,
            ),
            run=FinetuneRunConfig(evaluate_every=1000, checkpoint_every=1000),
            global_batch_size=128,
        )
    )
