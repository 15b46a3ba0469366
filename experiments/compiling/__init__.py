"""Compiling for machines you do not have: topologies, steps, predictions and their report."""

from albert_jax.lazy_exports import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "compiled_run": ["CompiledPhase", "compile_run"],
        "prediction": ["Prediction", "predict_step"],
        "report": ["format_report", "report_row"],
        "topologies": ["Topology", "parse_topologies"],
    },
)
