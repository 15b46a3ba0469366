"""The number of slots that suffices for a whole run, given how many sequences its rows have.

`cudnn_slots` gives the n rows that a device computes at a time room for S n sequences, whatever row
they are in. S is fixed before the first step, before any batch is read. Rows come in random order,
so the sum of their sequences is close to n times the mean. This module bounds the probability that
the sum exceeds S n, which falls exponentially with n.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from albert_jax.attention.cudnn_slots import FEWEST_SLOTS

OVERFLOW_PROBABILITY = 1e-6  # that a run ends for lack of slots, to be resumed with more of them
_STEEPEST = 64.0  # the largest t that is tried


class RowsAtOnce(NamedTuple):
    """The packed rows of a part of a run, and how many of them a device computes at a time.

    Attributes:
        counts: entry k is the number of rows with k sequences, where padding at the end of a row
            counts as one; there is one line for each way in which an epoch may lay out the rows.
        room: number of sequences that cuDNN has room for in each row without slots.
        rows: number of rows of a micro-batch on a device.
        times: number of micro-batches over all devices and steps.
    """

    counts: Int64[np.ndarray, "variants sequences"]
    room: int
    rows: int
    times: int


def fewest_slots(parts: Sequence[RowsAtOnce]) -> int:
    """Return the fewest slots per row that suffice for a run, except with `OVERFLOW_PROBABILITY`.

    Return 0 if they would not be fewer than the sequences that there is room for without slots.

    Example: if two thirds of the rows have one sequence and one third have two, 2 slots always
    suffice. If one row in a hundred has five, 128 rows at a time still need 2 slots, but 4 rows at
    a time need 5: in a million times, four such rows come together.

    Args:
        parts: the parts of the run; empty if no row has several sequences.
    """
    slots = FEWEST_SLOTS
    while sum(overflow_probability(part, slots) for part in parts) >= OVERFLOW_PROBABILITY:
        slots += 1
    return slots if slots < max((part.room for part in parts), default=0) else 0


def overflow_probability(part: RowsAtOnce, slots: int) -> float:
    """Bound the probability that some micro-batch has more sequences than slots.

    With X the number of sequences of a row, M(t) the mean of exp(t X) and any t > 0, n rows have
    more than S n sequences with a probability of at most M(t)^n exp(-t (S n + 1)) (Chernoff). This
    holds for rows drawn with replacement. Without replacement, as in an epoch, the mean of
    exp(t sum) is not larger (Hoeffding 1963, section 6, theorem 4). Rows of different epochs are
    independent, and each factor is at most that of the variant with the largest. The probabilities
    of micro-batches are added, which gives a bound however they depend on each other.

    Example: two rows at a time, each with 1 or 3 sequences, and 2 slots: only 3 + 3 are too many,
    with a probability of 1/4. The bound is the least of cosh(t)^2 exp(-t), which is
    4 / (3 sqrt(3)) = 0.77.
    """
    sizes = np.arange(part.counts.shape[1])
    if sizes[part.counts.any(axis=0)].max() <= slots:
        return 0.0
    fractions = part.counts / part.counts.sum(axis=1, keepdims=True)

    def exponent(t: float) -> float:
        log_means = logsumexp(t * sizes, axis=1, b=fractions)
        return part.rows * float(log_means.max()) - t * (slots * part.rows + 1)

    # Any t gives a valid bound, so the minimum need not be found exactly.
    best = minimize_scalar(exponent, bounds=(0, _STEEPEST), method="bounded").fun
    return min(1.0, math.exp(min(0.0, math.log(part.times) + float(best))))
