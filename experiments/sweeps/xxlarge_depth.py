r"""Are 24 layers better than 12 at a hidden size of 4096? (ALBERT appendix A.2, Table 13)

Rows       12 and 24 layers
Paper      xxlarge for 125,000 steps: no notable difference
Cost       3.9 and 7.8 ZFLOP (products, forward and backward)
Small      3 and 6 layers of 256, 400 steps each: 4 to 8 minutes a point on 2 CPU cores
Command    python -m experiments.sweep --sweep=experiments/sweeps/xxlarge_depth.py \
               --size=small --workdir=sweeps/xxlarge_depth --corpus_dir=CORPUS
Found      nothing yet
"""

from experiments.sweeping.bases import base_overrides, config_name, paper_steps, seeds, tasks
from experiments.sweeping.sweep import Size, Sweep, downstream, grid

PAPER = (
    downstream("94.0/88.1", "88.3/85.3", 87.8, 95.4, 82.5, 88.7),
    downstream("94.1/88.3", "88.1/85.1", 88.0, 95.2, 82.3, 88.7),
)


def get_sweep(size: Size) -> Sweep:
    depths, own = (12, 24), paper_steps(125_000)
    if size is Size.SMALL:
        depths, own = (3, 6), {"model.hidden_size": 256, "model.intermediate_size": 1024}
    return Sweep(
        base=config_name(size, "xxlarge"),
        rows=grid(
            {"model.num_hidden_layers": depths},
            {str(depth): paper for depth, paper in zip(depths, PAPER, strict=True)},
        ),
        overrides={**base_overrides(size), **own},
        seeds=seeds(size),
        tasks=tasks(size),
    )
