"""Fine-tuning tasks: configuration, and each kind with its data, model, metrics and predictions."""

from albert_jax.lazy_exports import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "config": ["FinetuneConfig", "TaskName"],
        "task": ["FinetuningTask", "RawPrediction", "Scores", "TaskKind"],
        "raw_inputs": ["EncodedInput", "PredictionOptions", "RawInput"],
        "registry": ["TASK_KINDS", "open_task"],
    },
)
