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

from experiments.cli.config_dicts import to_config_dict
from experiments.configs.recipes import released


def get_config() -> ConfigDict:
    return to_config_dict(released("xxlarge_v1", num_train_steps=1_500_000))
