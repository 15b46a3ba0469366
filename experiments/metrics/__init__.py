"""Metrics of runs: the log, its files, which a resumed run repairs, and plots."""

from albert_jax.lazy_exports import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "curves": ["plot_curves"],
        "metrics_file": ["read_metrics"],
        "run_log": ["RunLog", "StepWork"],
    },
)
