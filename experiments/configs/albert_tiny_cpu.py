r"""A tiny ALBERT that learns within minutes on a CPU: the demonstration.

Model      3 layers of 128 that share their parameters, vocabulary of 8000
Data       the documentation in the installed Python packages, about 24 MB
Steps      3200 of 32 packed rows of 64
Hardware   2 CPU cores, a few minutes
Command    python -m experiments.pretrain --workdir=runs/demo \
               --config=experiments/configs/albert_tiny_cpu.py --config.data.corpus_dir=CORPUS
Expected   out of the plateau of token frequencies within 300 steps; at the end masked-LM accuracy
           35 %, context gap 2.3 nats
"""

from ml_collections import ConfigDict

from albert_jax.config import AlbertConfig, PositionEncoding
from albert_jax.training.config import OptimizerConfig, OptimizerName, ScheduleName
from data_pipeline.config import DataConfig, Masking, Packing
from experiments.cli.config_dicts import to_config_dict
from experiments.run.config import ExperimentConfig, RunConfig


def get_config() -> ConfigDict:
    return to_config_dict(
        ExperimentConfig(
            model=AlbertConfig(
                embedding_size=128,
                hidden_size=128,
                num_hidden_layers=3,
                num_attention_heads=4,
                intermediate_size=512,
                max_position_embeddings=128,
                position_encoding=PositionEncoding.ROTARY,
                initializer_range=0.05,
            ),
            data=DataConfig(
                max_seq_length=64,
                packing=Packing.PACKED,
                masking=Masking.NGRAM,
                ngram=3,
                masked_lm_prob=0.2,
                max_predictions_per_seq=13,
            ),
            # With rotary positions, Muon at three times the rate and weights that are not as small
            # initially, the loss leaves its plateau ten times sooner (experiments/LOG.md).
            optimizer=OptimizerConfig(
                name=OptimizerName.MUON,
                learning_rate=6e-3,
                schedule=ScheduleName.POLY,
                num_train_steps=3200,
                num_warmup_steps=80,
                weight_decay=0.01,
                beta_2=0.98,
                bias_correction=True,
            ),
            run=RunConfig(
                log_every=50, evaluate_every=800, checkpoint_every=800, evaluation_pairs=512
            ),
            global_batch_size=32,
        )
    )
