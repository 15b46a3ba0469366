r"""How many groups of layers should have parameters of their own? (ALBERT §3.1, §4.5)

Rows       1, 2, 3, 4, 6 and 12 groups of the 12 layers
Paper      base for 125,000 steps; the text says that more and smaller groups do better and cost
           parameters, without numbers
Cost       0.149 ZFLOP a point, 6 points (products, forward and backward)
Small      6 layers of 128 for 400 steps: 2 to 3 minutes a point on 2 CPU cores
Command    python -m experiments.sweep --sweep=experiments/sweeps/groups.py \
               --size=small --workdir=sweeps/groups --corpus_dir=CORPUS
Found      nothing yet
"""

from experiments.sweeping.bases import base_overrides, config_name, seeds, tasks
from experiments.sweeping.sweep import Size, Sweep, grid


def get_sweep(size: Size) -> Sweep:
    depth = {Size.PAPER: 12, Size.SMALL: 6}[size]
    groups = [number for number in range(1, depth + 1) if depth % number == 0]
    return Sweep(
        base=config_name(size),
        rows=grid({"model.num_hidden_groups": groups}),
        overrides={**base_overrides(size), "model.num_hidden_layers": depth},
        seeds=seeds(size),
        tasks=tasks(size),
    )
