"""Settings of a run that are derived from those that its command line names."""

import math
from collections.abc import Iterator

from albert_jax.config import PositionEncoding
from albert_jax.training.config import OptimizerName, ScheduleName
from data_pipeline.config import LONGEST_ROW
from experiments.cli.given_settings import GivenSettings


def follow_steps(settings: GivenSettings) -> None:
    """Scale warm-up with the number of steps, and the checkpoint interval with the evaluation's.

    Example: ``--config.run.evaluate_every=100`` with a file that has both every 5,000 steps gives
    a checkpoint every 100 steps.
    """
    steps = "optimizer.num_train_steps"
    settings.keep_share(
        "optimizer.num_warmup_steps", steps, "warm-up of {:,} steps for {:,} becomes {:,} for {:,}"
    )
    settings.keep_share(
        "optimizer.start_warmup_step",
        steps,
        "the start of warm-up at step {:,} of {:,} becomes step {:,} of {:,}",
    )
    settings.keep_share(
        "run.checkpoint_every",
        "run.evaluate_every",
        "a checkpoint every {:,} steps with an evaluation every {:,} becomes one every {:,} with "
        "one every {:,}",
        at_least=1,
    )


def follow_optimizer(settings: GivenSettings) -> None:
    """Keep the learning rate constant after warm-up for the optimizer that needs no schedule."""
    if settings["optimizer.name"] != OptimizerName.SCHEDULE_FREE:
        return
    schedule, share = "optimizer.schedule", "optimizer.decay_share"
    stable = str(ScheduleName.WARMUP_STABLE_DECAY)
    words = f"for {OptimizerName.SCHEDULE_FREE}, whose rate is constant"
    settings.follow(schedule, stable, f"the schedule {settings[schedule]} becomes {stable} {words}")
    settings.follow(share, 0.0, f"a decay over {settings[share]} of the steps becomes none {words}")


def follow_lengths(settings: GivenSettings) -> None:
    """Extend the position table to rows that are named, and shorten other rows to the table.

    If a row has another length than in the file, its prediction slots are reduced to those that
    `masked_lm_prob` fills.

    Example: ``--config.data.max_seq_length=512`` with a file of 128 positions gives 512 positions;
    ``--config.model.max_position_embeddings=128`` with one of rows of 512 and 77 slots gives rows
    of 128 and 20 slots.
    """
    table, groups = "model.max_position_embeddings", list(_groups_with_rows(settings))
    if settings["model.position_encoding"] == PositionEncoding.ABSOLUTE:
        lengths = [f"{group}.max_seq_length" for group in groups]
        lengths.append("run.evaluation_seq_length")
        named = [settings.count(name) for name in lengths if settings.is_named(name)]
        positions, longest = settings.count(table), max(named, default=0)
        if positions < longest <= LONGEST_ROW:
            text = f"a position table of {positions:,} becomes one of {longest:,} for rows as long"
            settings.follow(table, longest, text)
        positions = settings.count(table)
        for name in lengths:
            if settings.count(name) > positions:
                text = f"rows of {settings.count(name):,} become rows of {positions:,}, the longest"
                settings.follow(name, positions, f"{text} that the model can read")
    for group in groups:
        _follow_slots(settings, group)


def _follow_slots(settings: GivenSettings, group: str) -> None:
    length, slots = f"{group}.max_seq_length", f"{group}.max_predictions_per_seq"
    rate, rows = settings["data.masked_lm_prob"], settings.count(length)
    if not (settings.is_changed(length) and isinstance(rate, int | float) and 0 <= rate <= 1):
        return  # the check of a wrong rate says what is allowed
    most, before = max(1, math.ceil(rate * rows)), settings.count(slots)
    if before > most:
        text = f"{before:,} prediction slots become {most:,} for rows of {rows:,}"
        settings.follow(slots, most, text)


def _groups_with_rows(settings: GivenSettings) -> Iterator[str]:
    yield "data"
    for name in ("first", "second"):
        if settings.count(f"phases.{name}.num_steps"):
            yield f"phases.{name}"
