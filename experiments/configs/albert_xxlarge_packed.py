r"""ALBERT xxlarge in packed rows, 15 % of all pieces masked: version 1's pairs at half its cost.

Model      that of version 1: 223.2 M parameters; no dropout
Data       English Wikipedia and BookCorpus
Steps      125,000 of 2048 rows of 512, 77 prediction slots each. A row of English Wikipedia holds
           about two pairs, so a batch holds the 4096 pairs of version 1
Rate       0.00176 as in version 1: it goes with the root of the pairs in a batch, which are the
           same
Cost       15.5 PFLOP a step, 1.94 ZFLOP in all (products, forward and backward)
Command    python -m experiments.pretrain --workdir=runs/xxlarge_packed \
               --config=experiments/configs/albert_xxlarge_packed.py --config.data.corpus_dir=CORPUS
Expected   not measured yet; version 1 at as many pairs: SQuAD 1.1 94.0/88.1, SQuAD 2.0 88.3/85.3,
           MNLI 87.8, SST-2 95.4, RACE 82.5 (Table 6)
"""

from ml_collections import ConfigDict

from experiments.cli.config_dicts import to_config_dict
from experiments.configs.recipes import packed


def get_config() -> ConfigDict:
    return to_config_dict(packed("xxlarge_v1"))
