r"""Which sentence objective is best? (ALBERT §4.6, Table 5)

Rows       none, the next sentence (BERT), sentence order
Paper      base for 125,000 steps. Next-sentence prediction teaches nothing about order
           (52.0 %), sentence order teaches next-sentence prediction (78.9 %)
Cost       0.149 ZFLOP a point, 3 points (products, forward and backward)
Small      3 layers of 128 for 400 steps: 1 to 2 minutes a point on 2 CPU cores, and some for
           its probes
Command    python -m experiments.sweep --sweep=experiments/sweeps/sentence_objective.py \
               --size=small --workdir=sweeps/sentence_objective --corpus_dir=CORPUS
Found      nothing yet
"""

from experiments.sweeping.bases import base_overrides, config_name, seeds, tasks
from experiments.sweeping.sweep import Size, Sweep, downstream, grid


def intrinsic(masked_lm: float, next_sentence: float, order: float) -> dict[str, float]:
    """Return the paper's first three columns. It does not say how it measured objectives that were
    not trained; here a probe on the frozen encoder of every point measures both."""
    return {
        "masked_lm_accuracy": masked_lm,
        "next_sentence_accuracy": next_sentence,
        "sentence_order_accuracy": order,
    }


PAPER = {
    "none": intrinsic(54.9, 52.4, 53.3)
    | downstream("88.6/81.5", "78.1/75.3", 81.5, 89.9, 61.7, 79.0),
    "nsp": intrinsic(54.5, 90.5, 52.0)
    | downstream("88.4/81.5", "77.2/74.6", 81.6, 91.1, 62.3, 79.2),
    "sop": intrinsic(54.0, 78.9, 86.5)
    | downstream("89.3/82.3", "80.0/77.1", 82.0, 90.3, 64.0, 80.1),
}


def get_sweep(size: Size) -> Sweep:
    return Sweep(
        base=config_name(size),
        rows=grid({"data.sentence_objective": tuple(PAPER)}, PAPER),
        overrides=base_overrides(size),
        seeds=seeds(size),
        tasks=tasks(size),
        probes=True,
    )
