r"""ALBERT base, version 2, as released: no dropout, more data, more steps.

Model      11.8 M parameters with the pre-training heads; no dropout
Data       more than Wikipedia and BookCorpus; the release does not list it
Steps      10,000,000. Batch, learning rate and warm-up are those of §4.1, an assumption: the
           release names data, dropout and steps alone
Hardware   Cloud TPU v3 in the paper, 64 to 512 chips by size
Cost       1.19 PFLOP a step, 11.9 ZFLOP in all (products, forward and backward)
Command    python -m experiments.pretrain --workdir=runs/base_v2 \
               --config=experiments/configs/albert_base_v2.py --config.data.corpus_dir=CORPUS
Expected   SQuAD 1.1 90.2/83.2, SQuAD 2.0 82.1/79.3, MNLI 84.6, SST-2 92.9, RACE 66.8 (release
           notes)
"""

from ml_collections import ConfigDict

from albert_jax.config import AlbertConfig
from albert_jax.training.config import OptimizerConfig, OptimizerName
from data_pipeline.config import DataConfig, Masking, Packing
from experiments.cli.config_dicts import to_config_dict
from experiments.run.config import ExperimentConfig


def get_config() -> ConfigDict:
    return to_config_dict(
        ExperimentConfig(
            model=AlbertConfig(
                embedding_size=128,
                hidden_size=768,
                num_hidden_layers=12,
                num_attention_heads=12,
                intermediate_size=3072,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
            ),
            data=DataConfig(
                max_seq_length=512,
                packing=Packing.UNPACKED,
                short_seq_prob=0.1,
                masking=Masking.NGRAM,
                ngram=3,
                masked_lm_prob=0.15,
                max_predictions_per_seq=20,  # which mask 3.9 % of a full row
            ),
            optimizer=OptimizerConfig(
                name=OptimizerName.LAMB,
                learning_rate=0.00176,
                num_train_steps=10_000_000,
                num_warmup_steps=3125,
                weight_decay=0.01,
            ),
            global_batch_size=4096,
        )
    )
