"""Benchmarks: speed of the data pipeline, steps, encoding, generation and fine-tuning."""

from albert_jax.lazy_exports import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "batches": ["Batches", "record", "replay"],
        "data": ["measure_corpus"],
        "encode": ["measure_encoding"],
        "finetune": ["measure_finetuning"],
        "generate": ["measure_generation"],
        "step": ["measure_step"],
        "timing": ["Candidate", "StepKind", "Windows", "time_candidates"],
    },
)
