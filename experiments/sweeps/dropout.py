r"""Does dropout help or hurt a model that does not overfit? (ALBERT §4.8, Table 8, Figure 2)

Rows       with dropout of 0.1 and without
Paper      xxlarge after about 1,000,000 steps: better without, by 0.3 points of the average
Cost       31 ZFLOP a point, 2 points (products, forward and backward)
Small      3 layers of 128 for 400 steps: 1 to 2 minutes a point on 2 CPU cores
Command    python -m experiments.sweep --sweep=experiments/sweeps/dropout.py \
               --size=small --workdir=sweeps/dropout --corpus_dir=CORPUS
Found      nothing yet
"""

from experiments.sweeping.bases import base_overrides, config_name, paper_steps, seeds, tasks
from experiments.sweeping.sweep import Size, Sweep, SweepRow, downstream


def row(name: str, dropout: float, paper: dict[str, float]) -> SweepRow:
    kinds = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    return SweepRow(name, {f"model.{kind}": dropout for kind in kinds}, paper)


def get_sweep(size: Size) -> Sweep:
    steps = paper_steps(1_000_000) if size is Size.PAPER else {}
    return Sweep(
        base=config_name(size, "xxlarge"),
        rows=(
            row("with", 0.1, downstream("94.7/89.2", "89.6/86.9", 90.0, 96.3, 85.7, 90.4)),
            row("without", 0.0, downstream("94.8/89.5", "89.9/87.2", 90.4, 96.5, 86.1, 90.7)),
        ),
        overrides={**base_overrides(size), **steps},
        seeds=seeds(size),
        tasks=tasks(size),
    )
