"""Evaluation of pre-training: held-out text, layers and linear probes."""

from albert_jax.lazy_exports import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "held_out": ["Baselines", "HeldOutEvaluator"],
        "layers": ["LayerMetrics", "evaluate_layers"],
        "probing": ["fit_probe", "probe_objective"],
        "trained_run": ["TrainedRun", "open_model", "open_trained_run"],
    },
)
