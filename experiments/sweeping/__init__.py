"""Sweeps: tables of experiments, planned, launched, collected and reported."""

from albert_jax.lazy_exports import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "sweep": ["Size", "Sweep", "SweepRow", "downstream", "grid", "load_sweep"],
        "points": ["Point", "expand"],
        "point_kind": ["PlannedPoint", "PointKind"],
        "plan": ["plan_points"],
        "results": ["read_results"],
        "report": ["write_report"],
    },
)
