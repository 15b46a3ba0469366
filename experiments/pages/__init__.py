"""Pages: self-contained HTML reports of runs and sweeps."""

from albert_jax.lazy_exports import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "charts": ["Chart", "Line"],
        "document": ["PAGE_FILE"],
        "run_page": ["write_run_page"],
    },
)
