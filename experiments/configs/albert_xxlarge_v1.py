r"""ALBERT xxlarge, version 1, as released (ALBERT Tables 9 and 10, 1.5 M steps).

Model      223.2 M parameters with the pre-training heads; no dropout
Data       English Wikipedia, BookCorpus and the additional data of XLNet and RoBERTa (ALBERT §4.8)
Steps      1,500,000 of 4096 pairs of 512, 20 prediction slots each
Hardware   Cloud TPU v3 in the paper, 64 to 512 chips by size
Cost       31.0 PFLOP a step, 46.5 ZFLOP in all (products, forward and backward)
Command    python -m experiments.pretrain --workdir=runs/xxlarge_v1 \
               --config=experiments/configs/albert_xxlarge_v1.py --config.data.corpus_dir=CORPUS
Expected   SQuAD 1.1 94.8/89.3, SQuAD 2.0 90.2/87.4, MNLI 90.8, SST-2 96.9, RACE 86.5 (release
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
                hidden_size=4096,
                num_hidden_layers=12,
                num_attention_heads=64,
                intermediate_size=16_384,
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
                num_train_steps=1_500_000,
                num_warmup_steps=3125,
                weight_decay=0.01,
            ),
            global_batch_size=4096,
        )
    )
