r"""Can a run start with short rows? (BERT's recipe: 128 for nine tenths of the steps, then 512)

Rows       the full length throughout, a quarter of it for nine tenths of the steps, a quarter of
           it throughout; one optimizer state, all evaluated at the full length. Positions
           beyond a quarter stay untrained in the last row
Paper      512 throughout, unlike BERT, without a comparison
Cost       0.149 ZFLOP at 512, 0.05 in phases, 0.04 at 128; 3 points
Small      3 layers of 128 for 400 steps on rows of 64 or 16: 1 to 2 minutes a point on 2 CPU cores
Command    python -m experiments.sweep --sweep=experiments/sweeps/sequence_length.py \
               --size=small --workdir=sweeps/sequence_length --corpus_dir=CORPUS
Found      nothing yet
"""

from experiments.sweeping.bases import SMALL_STEPS, base_overrides, config_name, seeds, tasks
from experiments.sweeping.sweep import Size, Sweep, SweepRow


def get_sweep(size: Size) -> Sweep:
    long, short, slots, steps = 512, 128, 20, 125_000
    if size is Size.SMALL:
        long, short, slots, steps = 64, 16, 3, SMALL_STEPS
    brief = {"max_seq_length": short, "max_predictions_per_seq": slots}
    phase = {"num_steps": steps * 9 // 10, **brief}
    return Sweep(
        base=config_name(size),
        rows=(
            SweepRow(f"{long}", {}),
            SweepRow(f"{short}-{long}", {f"phases.first.{name}": phase[name] for name in phase}),
            SweepRow(f"{short}", {f"data.{name}": brief[name] for name in brief}),
        ),
        overrides={**base_overrides(size), "run.evaluation_seq_length": long},
        seeds=seeds(size),
        tasks=tasks(size),
    )
