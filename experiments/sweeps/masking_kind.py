r"""What should be masked together: n-grams, words, tokens or spans? (ALBERT §4.1)

Rows       n-grams of whole words, single words, single tokens, geometric spans of words
           (SpanBERT)
Paper      n-grams, without a comparison
Cost       0.149 ZFLOP a point, 4 points (products, forward and backward)
Small      3 layers of 128 for 400 steps: 1 to 2 minutes a point on 2 CPU cores
Command    python -m experiments.sweep --sweep=experiments/sweeps/masking_kind.py \
               --size=small --workdir=sweeps/masking_kind --corpus_dir=CORPUS
Found      nothing yet
"""

from experiments.sweeping.bases import base_overrides, config_name, seeds, tasks
from experiments.sweeping.sweep import Size, Sweep, grid


def get_sweep(size: Size) -> Sweep:
    return Sweep(
        base=config_name(size),
        rows=grid({"data.masking": ("ngram", "whole_word", "token", "span")}),
        overrides=base_overrides(size),
        seeds=seeds(size),
        tasks=tasks(size),
    )
