"""Fine-tuning data: GLUE, SQuAD, RACE, tagging and labeled texts, from files to batches."""

from typing import TYPE_CHECKING

from albert_jax.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from data_pipeline.finetuning.dataset import (
        EvaluationBatch,
        FinetuningDataset,
        evaluation_batches,
    )
    from data_pipeline.finetuning.encoded_examples import EncodedExamples
    from data_pipeline.finetuning.encoding import encode_choices, encode_texts, encode_words
    from data_pipeline.finetuning.examples import (
        Answer,
        ChoiceExample,
        QuestionExample,
        TaggedExample,
        TextExample,
    )
    from data_pipeline.finetuning.glue import read_glue, read_glue_tfds, write_glue_submission
    from data_pipeline.finetuning.glue_tasks import GLUE_TASKS, GlueTask
    from data_pipeline.finetuning.labeled_text import TextColumns, read_labeled_text
    from data_pipeline.finetuning.metrics import compute_metrics, constant_baseline
    from data_pipeline.finetuning.race import read_race
    from data_pipeline.finetuning.tagging import read_conll, score_entities

# The metrics import scikit-learn, which takes seconds to load.
__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "dataset": ["EvaluationBatch", "FinetuningDataset", "evaluation_batches"],
        "encoded_examples": ["EncodedExamples"],
        "encoding": ["encode_choices", "encode_texts", "encode_words"],
        "examples": ["Answer", "ChoiceExample", "QuestionExample", "TaggedExample", "TextExample"],
        "glue": ["read_glue", "read_glue_tfds", "write_glue_submission"],
        "glue_tasks": ["GLUE_TASKS", "GlueTask"],
        "labeled_text": ["TextColumns", "read_labeled_text"],
        "metrics": ["compute_metrics", "constant_baseline"],
        "race": ["read_race"],
        "tagging": ["read_conll", "score_entities"],
    },
)
