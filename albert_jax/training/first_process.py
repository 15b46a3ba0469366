"""Actions of one process of a run, for which the others wait."""

from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils


def on_first_process(action: Callable[[], None], failure: Exception) -> None:
    """Run an action on process 0 while the others wait; if it fails, all of them raise.

    Args:
        action: what process 0 does.
        failure: what the others raise if it fails.
    """
    error: Exception | None = None
    if jax.process_index() == 0:
        try:
            action()
        except Exception as first:
            error = first
    if jax.process_count() > 1:
        failed = multihost_utils.broadcast_one_to_all(np.int32(error is not None))
        if failed and error is None:
            error = failure
    if error is not None:
        raise error
