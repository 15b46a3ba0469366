r"""Which sublayer may all layers share? (ALBERT §4.5, Table 4)

Rows       all, attention, ffn or none shared, at two embedding sizes
Paper      base for 125,000 steps. Sharing the feed-forward sublayer costs 1.6 to 1.9 points of the
           average, sharing attention at most 0.7
Cost       0.149 ZFLOP a point, 8 points (products, forward and backward)
Small      3 layers of 128 for 400 steps: 1 to 2 minutes a point on 2 CPU cores, 16 points
Command    python -m experiments.sweep --sweep=experiments/sweeps/parameter_sharing.py \
               --size=small --workdir=sweeps/sharing --corpus_dir=CORPUS
Found      `albert_small_wiki`, 5,000 steps: sharing all costs 0.16 nats of 5 compared with none,
           and all rows leave the plateau; the rows between differ less than seeds do
           (experiments/RESULTS.md)
"""

from experiments.sweeping.bases import base_overrides, config_name, seeds, tasks
from experiments.sweeping.sweep import Size, Sweep, downstream, grid

PAPER = {
    "128-all": downstream("89.3/82.3", "80.0/77.1", 82.0, 90.3, 64.0, 80.1),
    "128-attention": downstream("89.9/82.8", "80.7/77.9", 83.4, 91.9, 67.6, 81.7),
    "128-ffn": downstream("88.9/81.6", "78.6/75.6", 82.3, 91.7, 64.4, 80.2),
    "128-none": downstream("89.9/82.8", "80.3/77.3", 83.2, 91.5, 67.9, 81.6),
    "768-all": downstream("88.6/81.5", "79.2/76.6", 82.0, 90.6, 63.3, 79.8),
    "768-attention": downstream("89.9/82.7", "80.0/77.2", 84.0, 91.4, 67.7, 81.6),
    "768-ffn": downstream("89.2/82.1", "78.2/75.4", 81.5, 90.8, 62.6, 79.5),
    "768-none": downstream("90.4/83.2", "80.4/77.6", 84.5, 92.8, 68.2, 82.3),
}


def get_sweep(size: Size) -> Sweep:
    sharing = ("all", "attention", "ffn", "none")
    sizes, paper = (128, 768), PAPER
    if size is Size.SMALL:
        sizes = (128, 32)  # as wide as the layers, and a quarter of it
        wide = {f"128-{kind}": PAPER[f"768-{kind}"] for kind in sharing}
        paper = wide | {f"32-{kind}": PAPER[f"128-{kind}"] for kind in sharing}
    return Sweep(
        base=config_name(size),
        rows=grid({"model.embedding_size": sizes, "model.parameter_sharing": sharing}, paper),
        overrides=base_overrides(size),
        seeds=seeds(size),
        tasks=tasks(size),
    )
