"""What the experiments under `configs` have in common: the released recipe, and the packed one."""

import dataclasses

from albert_jax.config import AlbertConfig
from albert_jax.training.config import OptimizerConfig
from data_pipeline.config import DataConfig, Packing
from experiments.run.config import ExperimentConfig

# Of the released recipe, ALBERT §4.1: LAMB, and a pair a row.
PAIRS_PER_BATCH = 4096
LEARNING_RATE = 0.00176
NUM_TRAIN_STEPS = 125_000

# What a packed row of 512 holds on all of English Wikipedia, where half of the unpacked rows is
# padding (Krell et al. 2021). Longer documents fill more: 1.4 on a sample of its longest articles.
PAIRS_PER_PACKED_ROW = 2


def released(size: str, *, num_train_steps: int = NUM_TRAIN_STEPS) -> ExperimentConfig:
    """The recipe that the published weights were trained with.

    One pair a row of 512, 20 prediction slots (which mask 3.9 % of a full row), batches of 4096,
    LAMB at 0.00176 after 3125 steps of warm-up. The generator's faults stay mended; to have them
    back, set the choices that `DataConfig.legacy` lists.

    Args:
        size: name of a released size, such as ``base_v1``.
        num_train_steps: steps until the learning rate is 0.
    """
    return ExperimentConfig(
        model=AlbertConfig.from_name(size),
        data=DataConfig(max_seq_length=512, max_predictions_per_seq=20),
        optimizer=OptimizerConfig(learning_rate=LEARNING_RATE, num_train_steps=num_train_steps),
        global_batch_size=PAIRS_PER_BATCH,
    )


def packed(size: str) -> ExperimentConfig:
    """The same training in rows without padding, with 15 % of all pieces masked.

    A pair ends with its document at the latest, which leaves about half of an unpacked row of 512
    to padding. Packed rows hold about two pairs, so half the rows carry the 4096 pairs of a
    released batch. The learning rate goes with the root of the examples in a batch; they are as
    many, so it stays. 77 slots (15 % of 512) where the released recipe has 20 for each pair give
    about twice the predictions a batch.

    Args:
        size: name of a released size, such as ``base_v1``.
    """
    recipe = released(size)
    data = dataclasses.replace(recipe.data, packing=Packing.PACKED, max_predictions_per_seq=77)
    return dataclasses.replace(
        recipe, data=data, global_batch_size=PAIRS_PER_BATCH // PAIRS_PER_PACKED_ROW
    )
