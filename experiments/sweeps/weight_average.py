r"""Does a running mean of the parameters replace the decay of the rate?

Rows       no mean, and means over about 20 and 100 steps (1,000 and 10,000 at the paper's size),
           with the linear decay and at a constant rate; the mean is what is evaluated
Paper      no mean
Cost       0.149 ZFLOP a point, 6 points (products, forward and backward)
Small      3 layers of 128 for 400 steps: 1 to 2 minutes a point on 2 CPU cores
Command    python -m experiments.sweep --sweep=experiments/sweeps/weight_average.py \
               --size=small --workdir=sweeps/weight_average --corpus_dir=CORPUS
Found      small, loss of two seeds: constant rate 5.32, with a mean over 100 steps 5.26; linear
           decay 5.34, with that mean 5.37; others not run
"""

from typing import Any

from experiments.sweeping.bases import base_overrides, config_name, seeds, tasks
from experiments.sweeping.sweep import Size, Sweep, SweepRow

SCHEDULES: dict[str, dict[str, Any]] = {
    "linear": {"optimizer.schedule": "poly"},
    "constant": {"optimizer.schedule": "warmup_stable_decay", "optimizer.decay_share": 0.0},
}


def get_sweep(size: Size) -> Sweep:
    decays = {Size.PAPER: (None, 0.999, 0.9999), Size.SMALL: (None, 0.95, 0.99)}[size]
    return Sweep(
        base=config_name(size),
        rows=tuple(
            SweepRow(f"{name}-{decay}", schedule | {"optimizer.average_decay": decay})
            for name, schedule in SCHEDULES.items()
            for decay in decays
        ),
        overrides=base_overrides(size),
        seeds=seeds(size),
        tasks=tasks(size),
    )
