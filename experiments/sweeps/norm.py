r"""Layer norm after the residual sums or before the sublayers? (Xiong et al. 2020)

Rows       after (as in the paper) and before, each with the full warm-up and with a tenth of it
Paper      after. With layer norm before, deep models are said to need less warm-up
Cost       0.149 ZFLOP a point, 4 points (products, forward and backward)
Small      3 layers of 128 for 400 steps: 1 to 2 minutes a point on 2 CPU cores
Command    python -m experiments.sweep --sweep=experiments/sweeps/norm.py \
               --size=small --workdir=sweeps/norm --corpus_dir=CORPUS
Found      nothing yet
"""

from experiments.sweeping.bases import base_overrides, config_name, seeds, tasks
from experiments.sweeping.sweep import Size, Sweep, grid


def get_sweep(size: Size) -> Sweep:
    warmups = {Size.PAPER: (3125, 312), Size.SMALL: (40, 4)}[size]
    return Sweep(
        base=config_name(size),
        rows=grid({"model.norm": ("post", "pre"), "optimizer.num_warmup_steps": warmups}),
        overrides=base_overrides(size),
        seeds=seeds(size),
        tasks=tasks(size),
    )
