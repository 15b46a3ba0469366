r"""ALBERT large, version 2, as released: no dropout, more data, more steps.

Model      17.8 M parameters with the pre-training heads; no dropout
Data       more than Wikipedia and BookCorpus; the release does not list it
Steps      3,000,000. Batch, learning rate and warm-up are those of §4.1, an assumption: the
           release names data, dropout and steps alone
Hardware   Cloud TPU v3 in the paper, 64 to 512 chips by size
Cost       4.12 PFLOP a step, 12.4 ZFLOP in all (products, forward and backward)
Command    python -m experiments.pretrain --workdir=runs/large_v2 \
               --config=experiments/configs/albert_large_v2.py --config.data.corpus_dir=CORPUS
Expected   SQuAD 1.1 91.8/85.2, SQuAD 2.0 84.9/81.8, MNLI 86.5, SST-2 94.9, RACE 75.2 (release
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
                hidden_size=1024,
                num_hidden_layers=24,
                num_attention_heads=16,
                intermediate_size=4096,
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
                num_train_steps=3_000_000,
                num_warmup_steps=3125,
                weight_decay=0.01,
            ),
            global_batch_size=4096,
        )
    )
