r"""ALBERT base, version 1, as released (ALBERT §4.1, Table 2).

Model      11.8 M parameters with the pre-training heads; dropout 0.1
Data       English Wikipedia and BookCorpus, about 16 GB of text
Steps      125,000 of 4096 pairs of 512, 20 prediction slots each
Hardware   Cloud TPU v3 in the paper, 64 to 512 chips by size
Cost       1.19 PFLOP a step, 0.149 ZFLOP in all (products, forward and backward)
Command    python -m experiments.pretrain --workdir=runs/base_v1 \
               --config=experiments/configs/albert_base_v1.py --config.data.corpus_dir=CORPUS
Expected   masked LM 54.0 %, sentence order 86.5 % on text of SQuAD and RACE (Table 5);
           SQuAD 1.1 89.3/82.3, SQuAD 2.0 80.0/77.1, MNLI 81.6, SST-2 90.3, RACE 64.0 (Table 2)
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
