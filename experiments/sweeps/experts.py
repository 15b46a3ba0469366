r"""What restores the differences of layers that share everything: signals, experts, or changes?

Rows       no difference (the paper), a scale and an embedding of each layer; 8 experts of rank 8,
           of which a token gets 2, in all layers and in the last alone, and 4 of rank 16; a
           low-rank change of about as many parameters, and no biases
Paper      no difference; Nouriborji et al. 2025 gain by experts, beside much else that is new
Cost       0.158 ZFLOP a point with experts, as all are computed, 0.149 without; 8 points
Small      3 layers of 128 for 400 steps: 1 to 2 minutes a point on 2 CPU cores
Command    python -m experiments.sweep --sweep=experiments/sweeps/experts.py \
               --size=small --workdir=sweeps/experts --corpus_dir=CORPUS
Found      nothing yet
"""

from experiments.sweeping.bases import base_overrides, config_name, seeds, tasks
from experiments.sweeping.sweep import Size, Sweep, SweepRow, grid


def get_sweep(size: Size) -> Sweep:
    last = "12" if size is Size.PAPER else "3"
    experts = {"model.num_experts": 8, "model.expert_rank": 8}
    return Sweep(
        base=config_name(size),
        rows=(
            *grid({"model.depth_signal": ("none", "scale", "embedding")}),
            SweepRow("8-experts", experts),
            SweepRow("8-experts-last", experts | {"model.expert_layers": last}),
            SweepRow("4-experts", {"model.num_experts": 4, "model.expert_rank": 16}),
            SweepRow("rank-4", {"model.depth_rank": 4}),
            SweepRow("no-biases", {"model.dense_biases": False}),
        ),
        overrides=base_overrides(size),
        seeds=seeds(size),
        tasks=tasks(size),
    )
