"""Pre-training data: rows by number, masks and batches."""

from typing import TYPE_CHECKING

from albert_jax.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from data_pipeline.pretraining.dataset import (
        HeldOutDataset,
        PretrainingDataset,
        TrainingDataset,
    )
    from data_pipeline.pretraining.display import format_batch
    from data_pipeline.pretraining.masking import shuffle_visible_words
    from data_pipeline.pretraining.records import RecordDataset
    from data_pipeline.pretraining.tfrecord import import_records, write_records

# TensorFlow takes seconds to import.
__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "dataset": ["HeldOutDataset", "PretrainingDataset", "TrainingDataset"],
        "display": ["format_batch"],
        "masking": ["shuffle_visible_words"],
        "records": ["RecordDataset"],
        "tfrecord": ["import_records", "write_records"],
    },
)
