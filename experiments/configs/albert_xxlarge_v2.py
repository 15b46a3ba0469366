r"""ALBERT xxlarge, version 2, as released: no dropout, more data, more steps.

Model      223.2 M parameters with the pre-training heads; no dropout
Data       more than Wikipedia and BookCorpus; the release does not list it
Steps      3,000,000. Batch, learning rate and warm-up are those of §4.1, an assumption: the
           release names data, dropout and steps alone
Hardware   Cloud TPU v3 in the paper, 64 to 512 chips by size
Cost       31.0 PFLOP a step, 93 ZFLOP in all (products, forward and backward)
Command    python -m experiments.pretrain --workdir=runs/xxlarge_v2 \
               --config=experiments/configs/albert_xxlarge_v2.py --config.data.corpus_dir=CORPUS
Expected   SQuAD 1.1 94.6/89.1, SQuAD 2.0 89.8/86.9, MNLI 90.6, SST-2 96.8, RACE 86.8 (release
           notes)
"""

from ml_collections import ConfigDict

from experiments.cli.config_dicts import to_config_dict
from experiments.configs.recipes import released


def get_config() -> ConfigDict:
    return to_config_dict(released("xxlarge_v2", num_train_steps=3_000_000))
