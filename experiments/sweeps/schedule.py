r"""How should the learning rate decay? (ALBERT §4.1; Hu et al. 2024)

Rows       linear from step 0 as released, linear from the end of warm-up, cosine, constant with a
           decay at the end, inverse square root
Paper      linear from step 0, without a comparison
Cost       0.149 ZFLOP a point, 5 points (products, forward and backward)
Small      3 layers of 128 for 400 steps: 1 to 2 minutes a point on 2 CPU cores
Command    python -m experiments.sweep --sweep=experiments/sweeps/schedule.py \
               --size=small --workdir=sweeps/schedule --corpus_dir=CORPUS
Found      nothing yet
"""

from experiments.sweeping.bases import base_overrides, config_name, seeds, tasks
from experiments.sweeping.sweep import Size, Sweep, grid

SCHEDULES = ("legacy_poly", "poly", "cosine", "warmup_stable_decay", "inverse_root")


def get_sweep(size: Size) -> Sweep:
    return Sweep(
        base=config_name(size),
        rows=grid({"optimizer.schedule": SCHEDULES}),
        overrides=base_overrides(size),
        seeds=seeds(size),
        tasks=tasks(size),
    )
