r"""How wide must embeddings be, with and without parameter sharing? (ALBERT §4.4, Table 3)

Rows       embedding sizes 64, 128, 256 and 768, all parameters shared or none
Paper      base for 125,000 steps. Shared, 128 is best; not shared, wider is slightly better
Cost       0.149 ZFLOP a point, 8 points (products, forward and backward)
Small      3 layers of 128 for 400 steps: 1 to 2 minutes a point on 2 CPU cores
Command    python -m experiments.sweep --sweep=experiments/sweeps/embedding_size.py \
               --size=small --workdir=sweeps/embedding_size --corpus_dir=CORPUS
Found      nothing yet
"""

from experiments.sweeping.bases import base_overrides, config_name, seeds, tasks
from experiments.sweeping.sweep import Size, Sweep, downstream, grid

PAPER = {
    "all-64": downstream("88.7/81.4", "77.5/74.8", 80.8, 89.4, 63.5, 79.0),
    "all-128": downstream("89.3/82.3", "80.0/77.1", 81.6, 90.3, 64.0, 80.1),
    "all-256": downstream("88.8/81.5", "79.1/76.3", 81.5, 90.3, 63.4, 79.6),
    "all-768": downstream("88.6/81.5", "79.2/76.6", 82.0, 90.6, 63.3, 79.8),
    "none-64": downstream("89.9/82.9", "80.1/77.8", 82.9, 91.5, 66.7, 81.3),
    "none-128": downstream("89.9/82.8", "80.3/77.3", 83.7, 91.5, 67.9, 81.7),
    "none-256": downstream("90.2/83.2", "80.3/77.4", 84.1, 91.9, 67.3, 81.8),
    "none-768": downstream("90.4/83.2", "80.4/77.6", 84.5, 92.8, 68.2, 82.3),
}


def get_sweep(size: Size) -> Sweep:
    # A twelfth, a sixth, a third and all of the hidden size, or an eighth, a quarter, half and all.
    sizes = {Size.PAPER: (64, 128, 256, 768), Size.SMALL: (16, 32, 64, 128)}[size]
    paper = {
        f"{sharing}-{ours}": PAPER[f"{sharing}-{theirs}"]
        for sharing in ("all", "none")
        for ours, theirs in zip(sizes, (64, 128, 256, 768), strict=True)
    }
    return Sweep(
        base=config_name(size),
        rows=grid(
            {"model.parameter_sharing": ("all", "none"), "model.embedding_size": sizes}, paper
        ),
        overrides=base_overrides(size),
        seeds=seeds(size),
        tasks=tasks(size),
    )
