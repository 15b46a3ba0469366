"""Predictions of pre-trained and fine-tuned models on raw inputs."""

from albert_jax.lazy_exports import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "inference": ["Inference", "put_in_order"],
        "inputs": ["choose_inputs", "inputs_from_flags", "read_inputs"],
        "task": ["LoadedModel", "PredictionTask", "load_model"],
        "embeddings": ["EMBEDDING_TASKS", "Embedder", "open_embedder"],
        "pretrained": ["PRETRAINING_TASKS"],
        "finetuned": ["finetuned_tasks"],
    },
)
