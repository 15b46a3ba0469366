r"""How wide should a model of three layers be? (ALBERT appendix A.1, Table 12)

Rows       hidden sizes 1024, 2048, 4096 and 6144; heads of 64, feed-forward layers four times
           as wide
Paper      3 layers for 125,000 steps: better up to 4096, not beyond
Cost       0.08 to 2 ZFLOP a point, 4 points (products, forward and backward)
Small      3 layers of 64 to 384, 400 steps each: 1 to 8 minutes a point on 2 CPU cores
Command    python -m experiments.sweep --sweep=experiments/sweeps/width.py \
               --size=small --workdir=sweeps/width --corpus_dir=CORPUS
Found      nothing yet
"""

from experiments.sweeping.bases import base_overrides, config_name, seeds, tasks
from experiments.sweeping.sweep import Size, Sweep, SweepRow, downstream

PAPER = (
    downstream("79.8/69.7", "64.4/61.7", 77.7, 86.7, 54.0, 71.2),
    downstream("83.3/74.1", "69.1/66.6", 79.7, 88.6, 58.2, 74.6),
    downstream("85.0/76.4", "71.0/68.1", 80.3, 90.4, 60.4, 76.3),
    downstream("84.7/75.8", "67.8/65.4", 78.1, 89.1, 56.0, 74.0),
)


def row(width: int, head: int, paper: dict[str, float]) -> SweepRow:
    sizes = {
        "model.hidden_size": width,
        "model.intermediate_size": 4 * width,
        "model.num_attention_heads": width // head,
    }
    return SweepRow(str(width), sizes, paper)


def get_sweep(size: Size) -> Sweep:
    widths, head = (1024, 2048, 4096, 6144), 64
    if size is Size.SMALL:
        widths, head = (64, 128, 256, 384), 32
    return Sweep(
        base=config_name(size, "large"),
        rows=tuple(row(width, head, paper) for width, paper in zip(widths, PAPER, strict=True)),
        overrides={**base_overrides(size), "model.num_hidden_layers": 3},
        seeds=seeds(size),
        tasks=tasks(size),
    )
