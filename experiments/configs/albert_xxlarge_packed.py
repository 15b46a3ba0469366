r"""ALBERT xxlarge in packed rows, 15 % of all tokens masked: version 1's pairs at half its cost.

Model      that of version 1: 223.2 M parameters; no dropout
Data       English Wikipedia and BookCorpus
Steps      125,000 of 2048 rows of 512, 77 prediction slots each. Half of an unpacked
           row of English Wikipedia is padding (Krell et al. 2021), so a packed row holds about two
           pairs (1.4 on a sample of its longest articles), and a batch the 4096 of version 1
Rate       0.00176 as in version 1: it scales with the square root of the pairs in a batch, which
           are the same
Cost       15.5 PFLOP a step, 1.94 ZFLOP in all (products, forward and backward)
Command    python -m experiments.pretrain --workdir=runs/xxlarge_packed \
               --config=experiments/configs/albert_xxlarge_packed.py --config.data.corpus_dir=CORPUS
Expected   not measured yet; version 1 at as many pairs: SQuAD 1.1 94.0/88.1, SQuAD 2.0 88.3/85.3,
           MNLI 87.8, SST-2 95.4, RACE 82.5 (Table 6)
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
                packing=Packing.PACKED,
                short_seq_prob=0.1,
                masking=Masking.NGRAM,
                ngram=3,
                masked_lm_prob=0.15,
                max_predictions_per_seq=77,  # 15 % of 512
            ),
            optimizer=OptimizerConfig(
                name=OptimizerName.LAMB,
                learning_rate=0.00176,
                num_train_steps=125_000,
                num_warmup_steps=3125,
                weight_decay=0.01,
            ),
            global_batch_size=2048,
        )
    )
