r"""A base-sized ALBERT with what small sweeps favor since the paper, for a day of one GPU.

Model      base in size, and rotary positions, local attention in two of three applications (window
           128), a change of rank 16 of the shared kernels in each layer, no dropout
Data       English Wikipedia and BookCorpus, or more; packed rows
Steps      60,000 of 2048 rows of 512, 63 G tokens, with Muon
Choices    each by a sweep of 400 steps of 3 layers of 128, mean context gap of two seeds in nats
           (experiments/RESULTS.md): positions 0.86 for 0.00 with a table; a window of a quarter of
           the row 1.34 for 1.07 without; rank 16 1.06 for 0.86; 40 % masks 1.05, 20 % 0.86, 15 %
           0.58; Muon 0.86, AdamW 0.18, LAMB 0.00. Gates lost (0.71 and 0.74 for 0.86),
           so the feed-forward layer is the paper's. Nothing of this was measured at this size, and
           the rate is a guess: such sweeps say who begins to read first
Cost       0.572 PFLOP a step, 0.0343 ZFLOP in all (products, forward and backward): a day of an
           H200 at 40 % of its peak
Command    python -m experiments.pretrain --workdir=runs/modern --config.run.dtype=bfloat16 \
               --config=experiments/configs/albert_modern.py --config.data.corpus_dir=CORPUS
Expected   not measured yet. Hugging Face transformers hold no such model; fine-tuning and
           `--to=stablehlo` do
"""

from ml_collections import ConfigDict

from albert_jax.config import AlbertConfig, PositionEncoding
from albert_jax.training.config import OptimizerConfig, OptimizerName, ScheduleName
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
                position_encoding=PositionEncoding.ROTARY,
                attention_window=128,
                depth_rank=16,
            ),
            data=DataConfig(
                max_seq_length=512,
                packing=Packing.PACKED,
                short_seq_prob=0.1,
                masking=Masking.NGRAM,
                ngram=3,
                masked_lm_prob=0.3,
                max_predictions_per_seq=154,  # 30 % of 512
            ),
            optimizer=OptimizerConfig(
                name=OptimizerName.MUON,
                learning_rate=2e-3,
                schedule=ScheduleName.POLY,
                num_train_steps=60_000,
                num_warmup_steps=1500,
                weight_decay=0.01,
                beta_2=0.98,
                bias_correction=True,
            ),
            global_batch_size=2048,
        )
    )
