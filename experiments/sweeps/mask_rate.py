r"""How much should be masked? (Wettig et al. 2023)

Rows       15, 20, 25, 30 and 40 % of the tokens, with as many prediction slots as that takes
Paper      15 %, without a comparison. Later work found 40 % to do better in large models
Cost       0.15 to 0.16 ZFLOP a point, 5 points (products, forward and backward)
Small      3 layers of 128 for 400 steps: 1 to 2 minutes a point on 2 CPU cores
Command    python -m experiments.sweep --sweep=experiments/sweeps/mask_rate.py \
               --size=small --workdir=sweeps/mask_rate --corpus_dir=CORPUS
Found      small, context gap of two seeds: 40 % 1.05, 20 % 0.86, 15 % 0.58; others not run
"""

from experiments.sweeping.bases import base_overrides, config_name, seeds, tasks
from experiments.sweeping.sweep import Size, Sweep, SweepRow


def row(rate: float, length: int) -> SweepRow:
    slots = round(rate * length)
    return SweepRow(
        f"{rate:.2f}", {"data.masked_lm_prob": rate, "data.max_predictions_per_seq": slots}
    )


def get_sweep(size: Size) -> Sweep:
    length = {Size.PAPER: 512, Size.SMALL: 64}[size]
    return Sweep(
        base=config_name(size),
        rows=tuple(row(rate, length) for rate in (0.15, 0.2, 0.25, 0.3, 0.4)),
        overrides=base_overrides(size),
        seeds=seeds(size),
        tasks=tasks(size),
    )
