r"""How should positions be encoded? (Shaw et al. 2018, Su et al. 2021)

Rows       a learned vector a position (the paper), learned keys and values of local distances,
           rotary, none. Without any, shuffling visible words changes nothing, so that row has no
           context gap
Paper      absolute positions, without a comparison; some accounts attribute local relative ones to
           it
Cost       0.149 ZFLOP a point, somewhat more with learned distances; 4 points
Small      3 layers of 128 for 400 steps: 1 to 2 minutes a point on 2 CPU cores
Command    python -m experiments.sweep --sweep=experiments/sweeps/position_encoding.py \
               --size=small --workdir=sweeps/position_encoding --corpus_dir=CORPUS
Found      small, context gap of two seeds: rotary 0.86, relative_local 0.45, absolute and none 0.00
"""

from experiments.sweeping.bases import base_overrides, config_name, seeds, tasks
from experiments.sweeping.sweep import Size, Sweep, grid


def get_sweep(size: Size) -> Sweep:
    return Sweep(
        base=config_name(size),
        rows=grid({"model.position_encoding": ("absolute", "relative_local", "rotary", "none")}),
        overrides=base_overrides(size),
        seeds=seeds(size),
        tasks=tasks(size),
    )
