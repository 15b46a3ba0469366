"""Fine-tuning tasks: the kinds of tasks, their runs, evaluation and reports."""

from albert_jax.lazy_exports import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "config": ["FinetuneConfig", "TaskName"],
        "task": ["FinetuningTask", "RawPrediction", "Scores", "TaskKind"],
        "raw_inputs": ["EncodedInput", "PredictionOptions", "RawInput"],
        "registry": ["TASK_KINDS", "open_task"],
        "evaluation": ["TaskEvaluator"],
        "report": ["RunReport", "write_run_report", "write_summary_report"],
    },
)
