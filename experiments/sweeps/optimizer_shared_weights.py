r"""Which optimizer suits shared weights? Nobody has published it.

Rows       LAMB, AdamW, Muon, AdEMAMix and schedule-free AdamW, each at three learning rates, on the
           same batches. What larger batches change, for LAMB and AdamW, is `optimizer.py`
Paper      LAMB at 0.00176, without a comparison
Cost       0.149 ZFLOP a point, 15 points (products, forward and backward)
Small      the demonstration's 3 layers of 128, with rotary positions, for 800 steps of 32 rows:
           about 3 minutes a point on one CPU core, one seed
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
        "lamb": (0.003, 0.01, 0.03),
        "adamw": (0.0005, 0.0015, 0.0045),
        "muon": (0.002, 0.006, 0.018),
        "ademamix": (0.0005, 0.0015, 0.0045),
        "schedule_free": (0.001, 0.003, 0.009),
    },
}
# What decides is who leaves the plateau of token frequencies first. With absolute positions that
# takes several times as long, whatever the optimizer.
SMALL = {
    "model.position_encoding": "rotary",
    "data.masked_lm_prob": 0.2,
    "data.max_predictions_per_seq": 13,
    "global_batch_size": 32,
    "optimizer.num_train_steps": 800,
    "optimizer.num_warmup_steps": 80,
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
