r"""ALBERT base in packed rows, 15 % of all pieces masked: version 1's pairs at half its cost.

Model      that of version 1: 11.8 M parameters; dropout 0.1
Data       English Wikipedia and BookCorpus
Steps      125,000 of 2048 rows of 512, 77 prediction slots each. A row of English Wikipedia holds
           about two pairs, so a batch holds the 4096 pairs of version 1
Rate       0.00176 as in version 1: it goes with the root of the pairs in a batch, which are the
           same
Cost       0.598 PFLOP a step, 0.0748 ZFLOP in all (products, forward and backward)
Command    python -m experiments.pretrain --workdir=runs/base_packed \
               --config=experiments/configs/albert_base_packed.py --config.data.corpus_dir=CORPUS
Expected   not measured yet; version 1 at as many pairs: SQuAD 1.1 89.3/82.3, SQuAD 2.0 80.0/77.1,
           MNLI 81.6, SST-2 90.3, RACE 64.0 (Table 2)
"""

from ml_collections import ConfigDict

from experiments.cli.config_dicts import to_config_dict
from experiments.configs.recipes import packed


def get_config() -> ConfigDict:
    return to_config_dict(packed("base_v1"))
