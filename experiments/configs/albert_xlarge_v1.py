r"""ALBERT xlarge, version 1, as released (ALBERT §4.1, Table 2).

Model      59.0 M parameters with the pre-training heads; dropout 0.1. The published weights of
           this version fit 16 heads, the paper's rule gives 32
Data       English Wikipedia and BookCorpus, about 16 GB of text
Steps      125,000 of 4096 pairs of 512, 20 prediction slots each
Hardware   Cloud TPU v3 in the paper, 64 to 512 chips by size
Cost       15.8 PFLOP a step, 1.98 ZFLOP in all (products, forward and backward)
Command    python -m experiments.pretrain --workdir=runs/xlarge_v1 \
               --config=experiments/configs/albert_xlarge_v1.py --config.data.corpus_dir=CORPUS
Expected   SQuAD 1.1 92.5/86.1, SQuAD 2.0 86.1/83.1, MNLI 86.4, SST-2 92.4, RACE 74.8 (Table 2)
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
                num_attention_heads=16,
                intermediate_size=8192,
                hidden_dropout_prob=0.1,
                attention_probs_dropout_prob=0.1,
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
                num_train_steps=125_000,
                num_warmup_steps=3125,
                weight_decay=0.01,
            ),
            global_batch_size=4096,
        )
    )
