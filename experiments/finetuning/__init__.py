"""Fine-tuning runs: starting point, batches, evaluation and reports."""

from albert_jax.lazy_exports import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "open_run": ["Finetuning", "open_finetuning"],
        "evaluation": ["TaskEvaluator"],
        "report": ["RunReport", "write_run_report", "write_summary_report"],
    },
)
