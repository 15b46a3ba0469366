r"""What may a decoder share: parameters among its layers, or its layers with the encoder?

Rows       none, all, attention or ffn shared among the decoder's layers, and layers that are the
           encoder's (tied); cross-attention is the decoder's own there. Sizes are the encoder's
Paper      none with ALBERT. Rothe et al. (2020, §3) tie decoders to BERT and RoBERTa (BERTSHARE,
           ROBERTASHARE)
Cost       0.05 EFLOP a point for a base encoder and pairs of 32 and 32 tokens, 5 points (products,
           forward and backward)
Small      with an encoder of 3 layers of 128 (`albert_small_wiki`), 1,500 steps of 32 pairs:
           minutes a point on 2 CPU cores (estimated), 10 points
Command    python -m experiments.sweep --sweep=experiments/sweeps/decoder_sharing.py \
               --size=small --workdir=sweeps/decoder_sharing \
               --override=run.init_from=ENCODER \
               --override=data.train_file=train.en --override=targets.train_file=train.de \
               --override=data.dev_file=val.en --override=targets.dev_file=val.de
Found      not run yet
"""

from experiments.sweeping.bases import seeds
from experiments.sweeping.sweep import Size, Sweep, SweepRow

SHARING = ("none", "all", "attention", "ffn")
SMALL = {
    "optimizer.learning_rate": 1e-3,
    "optimizer.num_train_steps": 1500,
    "optimizer.num_warmup_steps": 150,
    "global_batch_size": 32,
    "data.max_seq_length": 64,
    "targets.vocab_size": 4000,
    "targets.max_length": 64,
    "targets.truncate": True,
    "targets.evaluation_examples": 200,
    "decoding.max_new_tokens": 64,
    "run.evaluate_every": 500,
    "run.checkpoint_every": 500,
}


def get_sweep(size: Size) -> Sweep:
    shared = (SweepRow(kind, {"decoder.parameter_sharing": kind}) for kind in SHARING)
    return Sweep(
        base="finetune/translation",
        rows=(*shared, SweepRow("tied", {"decoder.tie_to_encoder": True})),
        overrides=SMALL if size is Size.SMALL else {},
        seeds=seeds(size),
    )
