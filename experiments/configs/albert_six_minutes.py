r"""A small ALBERT from six minutes of one GPU, to fine-tune and to compare with.

Model      6 layers of 512 that share their parameters (7.5 M), the released vocabulary of 30,000
Data       `wiki_en`, built with the released tokenizer: 12,980 articles, 13 epochs
Steps      9,000 of 512 packed rows of 128, 590 M tokens; positions beyond 128 are not trained
Hardware   one NVIDIA H200, 347 s at 13,284 rows/s, in bfloat16
Cost       8.00 TFLOP a step, 0.0720 EFLOP in all (products, forward and backward): 207 TFLOP/s,
           21 % of the peak. A GPU-day of cramming has 39 times the peak operations
Command    python -m experiments.pretrain --workdir=runs/six_minutes \
               --config=experiments/configs/albert_six_minutes.py --config.data.corpus_dir=CORPUS
Expected   context gap 3.22 nats, masked-LM loss 3.71, its accuracy 40.3 %, sentence order 69.9 %;
           fine-tuned, and from random weights (experiments/RESULTS.md): STS-B 83.1, 14.4;
           SST-2 81.3, 77.8; MRPC 73.8, 68.4; RTE 59.2, 48.4; CoLA 9.3, 0.0;
           SQuAD 1.1, half an epoch of 11,877 questions, one seed: F1 47.3, 7.0
"""

from ml_collections import ConfigDict

from albert_jax.config import AlbertConfig
from albert_jax.training.config import OptimizerConfig, OptimizerName, ScheduleName
from data_pipeline.config import DataConfig, Masking, Packing
from experiments.cli.config_dicts import to_config_dict
from experiments.run.config import ComputeDtype, ExperimentConfig, RunConfig


def get_config() -> ConfigDict:
    return to_config_dict(
        ExperimentConfig(
            model=AlbertConfig(
                embedding_size=128,
                hidden_size=512,
                num_hidden_layers=6,
                num_attention_heads=8,
                intermediate_size=2048,
                max_position_embeddings=512,
            ),
            data=DataConfig(
                max_seq_length=128,
                packing=Packing.PACKED,
                masking=Masking.NGRAM,
                ngram=3,
                masked_lm_prob=0.15,
                max_predictions_per_seq=20,
            ),
            optimizer=OptimizerConfig(
                name=OptimizerName.ADAMW,
                learning_rate=7e-4,
                schedule=ScheduleName.POLY,
                num_train_steps=9000,
                num_warmup_steps=600,
                weight_decay=0.01,
                beta_2=0.98,
                bias_correction=True,
            ),
            run=RunConfig(
                dtype=ComputeDtype.BFLOAT16,
                evaluate_every=3000,
                checkpoint_every=3000,
                evaluation_batch_size=256,
                evaluation_pairs=2048,
            ),
            global_batch_size=512,
        )
    )
