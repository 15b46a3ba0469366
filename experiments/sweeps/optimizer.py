r"""LAMB or AdamW, as batches grow and steps become fewer? (You et al. 2020)

Rows       both, at batch sizes that see the same number of pairs in total. The learning rate scales
           with the root of the batch size and warm-up keeps its steps, as in LAMB's paper
Paper      LAMB at 4096 pairs, without a comparison
Cost       0.149 ZFLOP a point, 8 points (products, forward and backward)
Small      3 layers of 128 for 400 steps of 32 rows: 1 to 2 minutes a point on 2 CPU cores
Command    python -m experiments.sweep --sweep=experiments/sweeps/optimizer.py \
               --size=small --workdir=sweeps/optimizer --corpus_dir=CORPUS
Found      nothing yet
"""

from experiments.sweeping.bases import SMALL_STEPS, base_overrides, config_name, seeds, tasks
from experiments.sweeping.sweep import Size, Sweep, SweepRow

# Learning rates at the reference batch size. LAMB's at 4096 is the paper's; ours are guesses.
RATES = {
    Size.PAPER: {"lamb": 0.00176, "adamw": 0.0005},
    Size.SMALL: {"lamb": 0.01, "adamw": 0.0015},
}


def row(name: str, rate: float, batch: int, steps: int) -> SweepRow:
    return SweepRow(
        f"{name}-{batch}",
        {
            "optimizer.name": name,
            "optimizer.learning_rate": rate,
            "optimizer.num_train_steps": steps,
            "global_batch_size": batch,
        },
    )


def get_sweep(size: Size) -> Sweep:
    reference, steps, batches = 4096, 125_000, (512, 1024, 4096, 16384)
    if size is Size.SMALL:
        reference, steps, batches = 32, SMALL_STEPS, (8, 16, 32, 64)
    # With any number of steps; the small size has its own.
    warmup = {"optimizer.num_warmup_steps": 3125}
    return Sweep(
        base=config_name(size),
        rows=tuple(
            row(name, rate, batch, steps * reference // batch)
            for name, rate in RATES[size].items()
            for batch in batches
        ),
        overrides={**warmup, **base_overrides(size), "optimizer.reference_batch_size": reference},
        seeds=seeds(size),
        tasks=tasks(size),
    )
