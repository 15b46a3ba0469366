r"""Which optimizer suits shared weights? Nobody has published it.

Rows       LAMB, AdamW, Muon, AdEMAMix, schedule-free AdamW and Sophia, each at three rates, on
           the same batches. What larger batches change, for two of them, is `optimizer.py`
Paper      LAMB at 0.00176, without a comparison
Cost       0.149 ZFLOP a point, 18 points (products, forward and backward), Sophia's a tenth more
Small      3 layers of 128 for 400 steps: 1 to 2 minutes a point on 2 CPU cores, 36 points;
           what decides is who leaves the plateau first
Command    python -m experiments.sweep --sweep=experiments/sweeps/optimizer_shared_weights.py \
               --size=small --workdir=sweeps/optimizer_shared_weights --corpus_dir=CORPUS
Found      small, best context gap, mean of two seeds: Muon 0.86, schedule-free 0.72, AdamW 0.18,
           Sophia 0.10, AdEMAMix 0.07, LAMB 0.00
"""

from experiments.sweeping.bases import base_overrides, config_name, seeds, tasks
from experiments.sweeping.sweep import Size, Sweep, SweepRow

# The middle ones are LAMB's of the paper and what runs of these sizes had; others are guesses.
RATES = {
    Size.PAPER: {
        "lamb": (0.00088, 0.00176, 0.00352),
        "adamw": (0.00025, 0.0005, 0.001),
        "muon": (0.00025, 0.0005, 0.001),
        "ademamix": (0.00025, 0.0005, 0.001),
        "schedule_free": (0.0005, 0.001, 0.002),
        "sophia": (0.0002, 0.0004, 0.0008),
    },
    Size.SMALL: {
        "lamb": (0.003, 0.01, 0.03),
        "adamw": (0.0005, 0.0015, 0.0045),
        "muon": (0.002, 0.006, 0.018),
        "ademamix": (0.0005, 0.0015, 0.0045),
        "schedule_free": (0.001, 0.003, 0.009),
        "sophia": (0.0005, 0.0015, 0.0045),
    },
}


def get_sweep(size: Size) -> Sweep:
    return Sweep(
        base=config_name(size),
        rows=tuple(
            SweepRow(f"{name}-{rate:g}", {"optimizer.name": name, "optimizer.learning_rate": rate})
            for name, rates in RATES[size].items()
            for rate in rates
        ),
        overrides=base_overrides(size),
        seeds=seeds(size),
        tasks=tasks(size),
    )
