r"""ALBERT base, version 1, as released (ALBERT §4.1, Table 2).

Model      11.8 M parameters with the pre-training heads; dropout 0.1
Data       English Wikipedia and BookCorpus, about 16 GB of text
Steps      125,000 of 4096 pairs of 512, 20 prediction slots each
Hardware   Cloud TPU v3 in the paper, 64 to 512 chips by size
Cost       1.19 PFLOP a step, 0.149 ZFLOP in all (products, forward and backward)
Command    python -m experiments.pretrain --workdir=runs/base_v1 \
               --config=experiments/configs/albert_base_v1.py --config.data.corpus_dir=CORPUS
Expected   masked LM 54.0 %, sentence order 86.5 % on text of SQuAD and RACE (Table 5);
           SQuAD 1.1 89.3/82.3, SQuAD 2.0 80.0/77.1, MNLI 81.6, SST-2 90.3, RACE 64.0 (Table 2)
"""

from ml_collections import ConfigDict

from experiments.cli.config_dicts import to_config_dict
from experiments.configs.recipes import released


def get_config() -> ConfigDict:
    return to_config_dict(released("base_v1"))
