r"""ALBERT large, version 1, as released (ALBERT §4.1, Table 2).

Model      17.8 M parameters with the pre-training heads; dropout 0.1
Data       English Wikipedia and BookCorpus, about 16 GB of text
Steps      125,000 of 4096 pairs of 512, 20 prediction slots each
Hardware   Cloud TPU v3 in the paper, 64 to 512 chips by size
Cost       4.12 PFLOP a step, 0.515 ZFLOP in all (products, forward and backward)
Command    python -m experiments.pretrain --workdir=runs/large_v1 \
               --config=experiments/configs/albert_large_v1.py --config.data.corpus_dir=CORPUS
Expected   SQuAD 1.1 90.6/83.9, SQuAD 2.0 82.3/79.4, MNLI 83.5, SST-2 91.7, RACE 68.5 (Table 2)
"""

from ml_collections import ConfigDict

from experiments.cli.config_dicts import to_config_dict
from experiments.configs.recipes import released


def get_config() -> ConfigDict:
    return to_config_dict(released("large_v1"))
