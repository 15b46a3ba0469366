r"""ALBERT xlarge, version 2, as released: no dropout, more data, more steps.

Model      59.0 M parameters with the pre-training heads; no dropout. 32 heads, as in the released
           configuration
Data       more than Wikipedia and BookCorpus; the release does not list it
Steps      3,000,000. Batch, learning rate and warm-up are those of §4.1, an assumption: the
           release names data, dropout and steps alone
Hardware   Cloud TPU v3 in the paper, 64 to 512 chips by size
Cost       15.8 PFLOP a step, 47.4 ZFLOP in all (products, forward and backward)
Command    python -m experiments.pretrain --workdir=runs/xlarge_v2 \
               --config=experiments/configs/albert_xlarge_v2.py --config.data.corpus_dir=CORPUS
Expected   SQuAD 1.1 92.9/86.4, SQuAD 2.0 87.9/84.1, MNLI 87.9, SST-2 95.4, RACE 80.7 (release
           notes)
"""

from ml_collections import ConfigDict

from experiments.cli.config_dicts import to_config_dict
from experiments.configs.recipes import released


def get_config() -> ConfigDict:
    return to_config_dict(released("xlarge_v2", num_train_steps=3_000_000))
