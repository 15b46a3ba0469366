"""Hosts: the processes of a run, joined, compared, watched, and ended together."""

from albert_jax.lazy_exports import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "joined": ["agree", "agree_on_experiment", "on_all_hosts", "this_member"],
        "place": ["define_host_flags"],
        "watchdog": ["Watchdog"],
    },
)
