r"""Does a low-rank change of the shared kernels in each layer help? (Bae et al. 2024)

Rows       no change (the paper), ranks 4, 16 and 64 with everything shared, and nothing shared
Paper      no change; sharing nothing is 1.5 points better on average (Table 4, E = 128)
Cost       0.149 ZFLOP a point, 5 points: a change costs parameters and hardly any operations
Small      3 layers of 128 for 400 steps: 1 to 2 minutes a point on 2 CPU cores
Command    python -m experiments.sweep --sweep=experiments/sweeps/depth_rank.py \
               --size=small --workdir=sweeps/depth_rank --corpus_dir=CORPUS
Found      small, context gap of two seeds: rank 16 1.06, none 0.86, nothing shared 0.76
"""

from experiments.sweeping.bases import base_overrides, config_name, seeds, tasks
from experiments.sweeping.sweep import Size, Sweep, SweepRow, grid


def get_sweep(size: Size) -> Sweep:
    return Sweep(
        base=config_name(size),
        rows=(
            *grid({"model.depth_rank": (0, 4, 16, 64)}),
            SweepRow("unshared", {"model.parameter_sharing": "none"}),
        ),
        overrides=base_overrides(size),
        seeds=seeds(size),
        tasks=tasks(size),
    )
