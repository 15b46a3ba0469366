r"""How many labels is pre-training worth on SST-2?

Rows       1,000, 4,000, 16,000 and all 67,349 labels, from a pre-trained model and from random
           weights of its sizes. Each seed draws its own labels, the same from both starts, fewer
           out of more. 8, 4, 2 and 1 epochs: more labels are more steps, 250 to 2,105
Paper      none with ALBERT
Cost       13 TFLOP for 1,000 labels to 109 for all with `albert_six_minutes`, 2.0 PFLOP in all
           (products, forward and backward, without padding): about nine hours of a CPU core
Small      half the epochs, three seeds: 0.6 PFLOP
Command    python -m experiments.sweep --sweep=experiments/sweeps/sst2_labels.py \
               --workdir=sweeps/sst2_labels --override=run.init_from=MODEL \
               --override=data.dir=glue/SST-2
Found      small, `albert_six_minutes`, mean accuracy from pre-trained and random weights: 71.5 and
           55.5 with 1,000 labels, 75.8 and 68.7 with 4,000, 79.7 and 74.0 with 16,000 (two seeds),
           82.7 and 79.8 with all (one seed)
"""

from experiments.sweeping.sweep import Place, Size, Sweep, SweepRow

EPOCHS = {1_000: 8, 4_000: 4, 16_000: 2, 67_349: 1}
SETTINGS = {
    "optimizer.learning_rate": 1e-4,
    "data.max_seq_length": 128,
    "run.evaluate_every": 5000,  # at the end only: no checkpoint is chosen by the dev set
    "run.checkpoint_every": 250,
}


def get_sweep(size: Size) -> Sweep:
    return Sweep(
        base="finetune/sst2",
        rows=tuple(
            SweepRow(
                f"{start}-{labels}",
                {
                    "run.init_weights": start == "pretrained",
                    "data.max_train_examples": labels,
                    "data.num_epochs": epochs if size is Size.PAPER else epochs / 2,
                },
                place=Place("labels", labels, start),
            )
            for start in ("pretrained", "random")
            for labels, epochs in EPOCHS.items()
        ),
        overrides=SETTINGS,
        seeds=tuple(range(12345, 12345 + (5 if size is Size.PAPER else 3))),
    )
