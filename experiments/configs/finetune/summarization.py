r"""Summarization: a decoder writes in a few sentences what ALBERT reads in many.

Settings   warm-started encoder, fresh decoder of as many layers (Rothe et al. 2020, §4.3), sources
           of 512 tokens and summaries of 128; beams of 4 that repeat no trigram
Command    python -m experiments.finetune --config=experiments/configs/finetune/summarization.py \
               --config.data.train_file=train.jsonl --config.data.dev_file=val.jsonl \
               --config.data.text_column=article --config.targets.column=summary \
               --config.run.init_from=runs/base --workdir=runs/base-summaries
Expected   ROUGE by the size of the data: not measured yet
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
            task=TaskName.SUMMARIZATION,
            data=TaskDataConfig(max_seq_length=512),
            targets=TargetsConfig(
                max_length=128, vocab_size=16_000, truncate=True, label_smoothing=0.1
            ),
            decoding=GenerationOptions(
                num_beams=4, max_new_tokens=128, no_repeat_ngram_size=3, length_penalty=1.0
            ),
            dropout=DropoutConfig(encoder=0.1),
            optimizer=OptimizerConfig(
                name=OptimizerName.ADAMW,
                learning_rate=5e-4,
                schedule=ScheduleName.POLY,
                num_train_steps=20_000,
                num_warmup_steps=2000,
                weight_decay=0.01,
                beta_2=0.98,
                bias_correction=True,
            ),
            run=FinetuneRunConfig(evaluate_every=2000, checkpoint_every=2000),
            global_batch_size=64,
        )
    )
