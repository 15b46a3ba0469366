r"""Is it better to detect replaced tokens than to predict masked ones? (Clark et al. 2020)

Rows       masked LM; detection with the whole encoder as the generator, with half of its layers
           (two of three), and with a generator of its own of a quarter of the width
Paper      masked LM; ELECTRA's generators are of their own, with tied embeddings
Cost       0.149 ZFLOP for masked LM, then 0.298, 0.224 and 0.162 ZFLOP: rows take the same steps
Small      3 layers of 128 for 400 steps: 1 to 2 minutes on 2 CPU cores for masked LM, up to twice
           the operations for the others
Command    python -m experiments.sweep --sweep=experiments/sweeps/replaced_tokens.py \
               --size=small --workdir=sweeps/replaced_tokens --corpus_dir=CORPUS
Found      nothing yet
"""

from experiments.sweeping.bases import base_overrides, config_name, seeds, tasks
from experiments.sweeping.sweep import Size, Sweep, SweepRow


def get_sweep(size: Size) -> Sweep:
    detection = {"objective.token_loss": "replaced_tokens", "data.corruption": "always_mask"}
    half = 6 if size is Size.PAPER else 2  # of 12 layers, of 3
    return Sweep(
        base=config_name(size),
        rows=(
            SweepRow("masked_lm", {}),
            SweepRow("shared", detection),
            SweepRow("shared-half", detection | {"objective.generator_layers": half}),
            SweepRow("own", detection | {"objective.generator": "own"}),
        ),
        overrides=base_overrides(size),
        seeds=seeds(size),
        tasks=tasks(size),
        probes=True,
    )
