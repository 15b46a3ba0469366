r"""Vectors of sentences whose cosines are in the order of STS-B's scores.

Settings   CoSENT, temperature 0.05, rate 3e-5, batches of 32, 4 epochs; STS-B alone, as Reimers and
           Gurevych 2019, §4.2, who start from NLI: --config.run.init_from=runs/base-nli
Command    python -m experiments.finetune --config=experiments/configs/finetune/embedding_stsb.py \
               --config.data.train_file=glue/STS-B/train.tsv \
               --config.data.dev_file=glue/STS-B/dev.tsv \
               --config.run.init_from=runs/base --workdir=runs/base-stsb-vectors
Expected   BERT-base gets a Spearman correlation of 84.67 on STS-B's test set, 85.35 after NLI
           (Reimers and Gurevych 2019, Table 2)
"""

from ml_collections import ConfigDict

from albert_jax.training.config import OptimizerConfig, OptimizerName
from data_pipeline.finetuning.similarity.examples import PairFormat
from experiments.cli.config_dicts import to_config_dict
from experiments.tasks.config import FinetuneConfig, FinetuneRunConfig
from experiments.tasks.task_settings import EmbeddingConfig, TaskDataConfig, TaskName


def get_config() -> ConfigDict:
    return to_config_dict(
        FinetuneConfig(
            task=TaskName.EMBEDDING,
            data=TaskDataConfig(max_seq_length=128, num_epochs=4.0),
            embedding=EmbeddingConfig(train_format=PairFormat.STSB, dev_format=PairFormat.STSB),
            optimizer=OptimizerConfig(
                name=OptimizerName.ADAMW,
                learning_rate=3e-5,
                num_train_steps=10_000,
                num_warmup_steps=1000,
                weight_decay=0.01,
                bias_correction=True,
            ),
            run=FinetuneRunConfig(evaluate_every=90, checkpoint_every=90),
            global_batch_size=32,
        )
    )
