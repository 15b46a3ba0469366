r"""ALBERT base, version 2, as released: no dropout, more data, more steps.

Model      11.8 M parameters with the pre-training heads; no dropout
Data       more than Wikipedia and BookCorpus; the release does not list it
Steps      10,000,000. Batch, learning rate and warm-up are those of §4.1, an assumption: the
           release names data, dropout and steps alone
Hardware   Cloud TPU v3 in the paper, 64 to 512 chips by size
Cost       1.19 PFLOP a step, 11.9 ZFLOP in all (products, forward and backward)
Command    python -m experiments.pretrain --workdir=runs/base_v2 \
               --config=experiments/configs/albert_base_v2.py --config.data.corpus_dir=CORPUS
Expected   SQuAD 1.1 90.2/83.2, SQuAD 2.0 82.1/79.3, MNLI 84.6, SST-2 92.9, RACE 66.8 (release
           notes)
"""

from ml_collections import ConfigDict

from experiments.cli.config_dicts import to_config_dict
from experiments.configs.recipes import released


def get_config() -> ConfigDict:
    return to_config_dict(released("base_v2", num_train_steps=10_000_000))
