r"""ALBERT xlarge, version 2, as released: no dropout, more data, more steps.

Model      59.0 M parameters with the pre-training heads; no dropout. 32 heads, as in the released
           configuration
Data       more than Wikipedia and BookCorpus; the release does not list it
Steps      3,000,000. Batch, learning rate and warm-up are those of §4.1, an assumption: the
           release names data, dropout and steps alone
Hardware   Cloud TPU v3 in the paper, 64 to 512 chips by size
Cost       15.8 PFLOP a step, 47.4 ZFLOP in all (products, forward and backward)
Command    python -m experiments.pretrain --workdir=runs/xlarge_v2 \
               --config=experiments/configs/albert_xlarge_v2.py --config.data.corpus_dir=CORPUS
Expected   SQuAD 1.1 92.9/86.4, SQuAD 2.0 87.9/84.1, MNLI 87.9, SST-2 95.4, RACE 80.7 (release
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
                hidden_size=2048,
                num_hidden_layers=24,
                num_attention_heads=32,
                intermediate_size=8192,
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
