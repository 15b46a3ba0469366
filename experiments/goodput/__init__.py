"""Goodput: what a run spent its time on, over all of its starts, and on which host."""

from albert_jax.lazy_exports import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "attempts": ["Attempt", "Goodput", "summarize"],
        "clock": ["Activity", "during", "start_clock_of_command"],
        "ledger": ["GOODPUT_FILE", "read_attempts"],
    },
)
