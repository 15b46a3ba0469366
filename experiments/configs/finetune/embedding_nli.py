r"""Vectors of sentences, from entailments and contradictions: SNLI or MNLI, scored on STS-B.

Settings   supervised SimCSE (Gao et al. 2021, §4): an entailment is the positive of its premise, a
           contradiction its hard negative; temperature 0.05, rate 5e-5, batches of 512, 3 epochs
Command    python -m experiments.finetune --config=experiments/configs/finetune/embedding_nli.py \
               --config.data.train_file=snli/snli_1.0_train.jsonl \
               --config.data.dev_file=glue/STS-B/dev.tsv \
               --config.run.init_from=runs/base --workdir=runs/base-nli
Expected   BERT-base gets a Spearman correlation of 84 on STS-B's test set with SNLI and MNLI
           together (Gao et al. 2021, Table 5); of ALBERT no such run is known here
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
            data=TaskDataConfig(max_seq_length=64, num_epochs=3.0),
            embedding=EmbeddingConfig(train_format=PairFormat.NLI, dev_format=PairFormat.STSB),
            optimizer=OptimizerConfig(
                name=OptimizerName.ADAMW,
                learning_rate=5e-5,
                num_train_steps=10_000,
                num_warmup_steps=1000,
                weight_decay=0.01,
                bias_correction=True,
            ),
            run=FinetuneRunConfig(evaluate_every=125, checkpoint_every=125),
            global_batch_size=512,
        )
    )
