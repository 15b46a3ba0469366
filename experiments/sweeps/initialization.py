r"""Should initial weights shrink as a model gets wider?

Rows       0.02 at every width, scaled by the hidden size, scaled by each layer's fan-in
Paper      0.02. The authors' later Chinese models have 0.014 at 2048 and 0.01 at 4096
Cost       1.98 ZFLOP a point, 3 points (products, forward and backward)
Small      3 layers of 128 for 400 steps: 1 to 2 minutes a point on 2 CPU cores
Command    python -m experiments.sweep --sweep=experiments/sweeps/initialization.py \
               --size=small --workdir=sweeps/initialization --corpus_dir=CORPUS
Found      nothing yet
"""

from experiments.sweeping.bases import base_overrides, config_name, seeds, tasks
from experiments.sweeping.sweep import Size, Sweep, grid


def get_sweep(size: Size) -> Sweep:
    return Sweep(
        base=config_name(size, "xlarge"),
        rows=grid({"model.initialization": ("fixed", "hidden_size", "fan_in")}),
        overrides=base_overrides(size),
        seeds=seeds(size),
        tasks=tasks(size),
    )
