r"""A gate in the feed-forward layer, and other norms? (Shazeer 2020, Zhang and Sennrich 2019)

Rows       the paper's layer, gates by GELU and by SiLU of as many parameters; with GELU's gate also
           norms by the root mean square, before the halves and around them
Paper      one wide layer, layer norm after each sum
Cost       0.149 ZFLOP a point, 6 points
Small      3 layers of 128 for 400 steps: 1 to 2 minutes a point on 2 CPU cores
Command    python -m experiments.sweep --sweep=experiments/sweeps/feed_forward.py \
               --size=small --workdir=sweeps/feed_forward --corpus_dir=CORPUS
Found      small, context gap of two seeds: mlp 0.86, swiglu 0.74, geglu 0.71; norms not run
"""

from experiments.sweeping.bases import base_overrides, config_name, seeds, tasks
from experiments.sweeping.sweep import Size, Sweep, SweepRow, grid

NORMS = ("post", "pre", "sandwich")


def get_sweep(size: Size) -> Sweep:
    gated = {"model.feed_forward": "geglu", "model.norm_kind": "rms"}
    return Sweep(
        base=config_name(size),
        rows=(
            *grid({"model.feed_forward": ("mlp", "geglu", "swiglu")}),
            *(SweepRow(f"geglu-rms-{norm}", gated | {"model.norm": norm}) for norm in NORMS),
        ),
        overrides=base_overrides(size),
        seeds=seeds(size),
        tasks=tasks(size),
    )
