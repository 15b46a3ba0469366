r"""A small ALBERT on English Wikipedia in about an hour on a CPU: a check that everything learns.

Model      3 layers of 128 that share their parameters, the released vocabulary of 30,000
Data       `wiki_en`, built with the released tokenizer
Steps      5,000 of 128 packed rows of 64
Hardware   2 CPU cores, about an hour
Command    python -m experiments.pretrain --workdir=runs/small_wiki \
               --config=experiments/configs/albert_small_wiki.py --config.data.corpus_dir=CORPUS
Expected   context gap 1.83 nats, masked-LM loss 5.06, which is 1.58 nats under the entropy of
           single tokens, sentence order 59 % (experiments/RESULTS.md)
"""

from ml_collections import ConfigDict

from albert_jax.config import AlbertConfig
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
                max_position_embeddings=512,
            ),
            data=DataConfig(
                max_seq_length=64,
                packing=Packing.PACKED,
                masking=Masking.NGRAM,
                ngram=3,
                masked_lm_prob=0.15,
                max_predictions_per_seq=10,
            ),
            optimizer=OptimizerConfig(
                name=OptimizerName.ADAMW,
                learning_rate=1.5e-3,
                schedule=ScheduleName.POLY,
                num_train_steps=5000,
                num_warmup_steps=300,
                weight_decay=0.01,
                bias_correction=True,
            ),
            run=RunConfig(
                log_every=50, evaluate_every=500, checkpoint_every=500, evaluation_pairs=2048
            ),
            global_batch_size=128,
        )
    )
