r"""Which optimizer suits shared weights? Nobody has published it.

Rows       LAMB, AdamW, Muon, AdEMAMix and schedule-free AdamW, each at three learning rates, on the
           same batches. What larger batches change, for LAMB and AdamW, is `optimizer.py`
Paper      LAMB at 0.00176, without a comparison
Cost       0.149 ZFLOP a point, 15 points (products, forward and backward)
Small      the demonstration's 3 layers of 128 for 1,000 steps of 64 rows: about 6 minutes a point
           on one CPU core, one seed
Command    python -m experiments.sweep --sweep=experiments/sweeps/optimizer_shared_weights.py \
               --size=small --workdir=sweeps/optimizer_shared_weights --corpus_dir=CORPUS
Found      nothing yet
"""

from experiments.sweeping.bases import config_name, tasks
from experiments.sweeping.sweep import Size, Sweep, SweepRow

# The middle ones are LAMB's of the paper and what runs of these sizes had; others are guesses.
RATES = {
    Size.PAPER: {
        "lamb": (0.00088, 0.00176, 0.00352),
        "adamw": (0.00025, 0.0005, 0.001),
        "muon": (0.00025, 0.0005, 0.001),
        "ademamix": (0.00025, 0.0005, 0.001),
        "schedule_free": (0.0005, 0.001, 0.002),
    },
    Size.SMALL: {
        "lamb": (0.005, 0.01, 0.02),
        "adamw": (0.0005, 0.001, 0.002),
        "muon": (0.001, 0.002, 0.004),
        "ademamix": (0.0005, 0.001, 0.002),
        "schedule_free": (0.001, 0.002, 0.004),
    },
}
# What decides is who leaves the plateau of token frequencies first, and that early.
SMALL = {
    "optimizer.num_train_steps": 1000,
    "optimizer.num_warmup_steps": 60,
    "run.evaluate_every": 200,
    "run.checkpoint_every": 200,
    "run.keep_checkpoints": 1,
}


def get_sweep(size: Size) -> Sweep:
    return Sweep(
        base=config_name(size) if size is Size.PAPER else "albert_tiny_cpu",
        rows=tuple(
            SweepRow(f"{name}-{rate:g}", {"optimizer.name": name, "optimizer.learning_rate": rate})
            for name, rates in RATES[size].items()
            for rate in rates
        ),
        overrides={} if size is Size.PAPER else SMALL,
        tasks=tasks(size),
    )
