r"""How long should the n-grams be that are masked together? (ALBERT §4.1)

Rows       n-grams of at most 1 to 5 words, short ones more probable
Paper      n-grams of at most 3 words, without a comparison; SpanBERT found longer spans to help
Cost       0.149 ZFLOP a point, 5 points (products, forward and backward)
Small      3 layers of 128 for 400 steps: 1 to 2 minutes a point on 2 CPU cores
Command    python -m experiments.sweep --sweep=experiments/sweeps/ngram.py \
               --size=small --workdir=sweeps/ngram --corpus_dir=CORPUS
Found      nothing yet
"""

from experiments.sweeping.bases import base_overrides, config_name, seeds, tasks
from experiments.sweeping.sweep import Size, Sweep, grid


def get_sweep(size: Size) -> Sweep:
    return Sweep(
        base=config_name(size),
        rows=grid({"data.ngram": (1, 2, 3, 4, 5)}),
        overrides=base_overrides(size),
        seeds=seeds(size),
        tasks=tasks(size),
    )
