r"""Does a shared layer need to see the whole row each time? (Warner et al. 2024, ModernBERT)

Rows       global attention throughout, then windows of 128 and 32 of 512 positions (of 128: 32 and
           16) in two applications of three; rotary positions in all
Paper      global attention throughout, absolute positions
Cost       0.149 ZFLOP without a window, 0.141 with one of 128; 3 points
Small      3 layers of 128 for 400 steps on rows of 128: 2 to 4 minutes a point on 2 CPU cores
Command    python -m experiments.sweep --sweep=experiments/sweeps/local_attention.py \
               --size=small --workdir=sweeps/local_attention --corpus_dir=CORPUS
Found      small, context gap of two seeds: window 16 1.50, 32 1.34, none 1.07
"""

from experiments.sweeping.bases import base_overrides, config_name, seeds, tasks
from experiments.sweeping.sweep import Size, Sweep, grid


def get_sweep(size: Size) -> Sweep:
    windows, rows = (0, 128, 32), {}
    if size is Size.SMALL:
        windows = 0, 32, 16
        rows = {"data.max_seq_length": 128, "data.max_predictions_per_seq": 26}
    return Sweep(
        base=config_name(size),
        rows=grid({"model.attention_window": windows}),
        overrides={**base_overrides(size), **rows, "model.position_encoding": "rotary"},
        seeds=seeds(size),
        tasks=tasks(size),
    )
