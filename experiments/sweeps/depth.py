r"""How deep should one shared block be applied? (ALBERT appendix A.1, Table 11)

Rows       1, 3, 6, 12, 24 and 48 layers; from 3 on, each starts from the parameters of
           the one before
Paper      large for 125,000 steps: better up to 24 layers, not beyond
Cost       0.515 ZFLOP for 24 layers, and in proportion to the depth; 6 points
Small      128 wide, 1 to 12 layers, 400 steps each: 1 to 5 minutes a point on 2 CPU cores
Command    python -m experiments.sweep --sweep=experiments/sweeps/depth.py \
               --size=small --workdir=sweeps/depth --corpus_dir=CORPUS
Found      nothing yet
"""

from experiments.sweeping.bases import base_overrides, config_name, seeds, tasks
from experiments.sweeping.sweep import Size, Sweep, SweepRow, downstream

PAPER = {
    1: downstream("31.1/22.9", "50.1/50.1", 66.4, 80.8, 40.1, 52.9),
    3: downstream("79.8/69.7", "64.4/61.7", 77.7, 86.7, 54.0, 71.2),
    6: downstream("86.4/78.4", "73.8/71.1", 81.2, 88.9, 60.9, 77.2),
    12: downstream("89.8/83.3", "80.7/77.9", 83.3, 91.7, 66.7, 81.5),
    24: downstream("90.3/83.3", "81.8/79.0", 83.3, 91.5, 68.7, 82.1),
    48: downstream("90.0/83.1", "81.8/78.9", 83.4, 91.9, 66.9, 81.8),
}


def get_sweep(size: Size) -> Sweep:
    depths = tuple(PAPER) if size is Size.PAPER else (1, 3, 6, 12)
    befores = (None, *map(str, depths[:-1]))
    return Sweep(
        base=config_name(size, "large"),
        rows=tuple(
            SweepRow(
                str(depth), {"model.num_hidden_layers": depth}, PAPER[depth], starts_from=before
            )
            for depth, before in zip(depths, befores, strict=True)
        ),
        overrides=base_overrides(size),
        seeds=seeds(size),
        tasks=tasks(size),
    )
