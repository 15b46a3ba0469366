"""The kind of each fine-tuning task that `--config.task` names."""

from collections.abc import Mapping
from typing import Any

from albert_jax.config import AlbertConfig
from data_pipeline.tokenizers.albert import AlbertTokenizer
from experiments.tasks.choice import CHOICE
from experiments.tasks.config import FinetuneConfig
from experiments.tasks.embedding import EMBEDDING
from experiments.tasks.generation import GENERATION
from experiments.tasks.span import SPAN
from experiments.tasks.tagging import TAGGING
from experiments.tasks.task import FinetuningTask, TaskKind
from experiments.tasks.task_settings import TaskName
from experiments.tasks.text import TEXT

# GLUE tasks are of the same kind as tasks on one's own text files.
TASK_KINDS: Mapping[TaskName, TaskKind] = dict.fromkeys(TaskName, TEXT) | {
    TaskName.SQUAD: SPAN,
    TaskName.RACE: CHOICE,
    TaskName.TAGGING: TAGGING,
    TaskName.TRANSLATION: GENERATION,
    TaskName.SUMMARIZATION: GENERATION,
    TaskName.EMBEDDING: EMBEDDING,
}


def open_task(
    config: FinetuneConfig, model: AlbertConfig, tokenizer: AlbertTokenizer, **compute: Any
) -> FinetuningTask:
    """Read and encode the examples of a run, and make its model.

    Args:
        config: the run.
        model: the encoder's configuration.
        tokenizer: the encoder's tokenizer.
        compute: `dtype` and `execution` of the model, and `decoder` for tasks that have one.

    Raises:
        InputError: a file is missing or malformed, or its examples do not fit the settings.
    """
    return TASK_KINDS[config.task].open(config, model, tokenizer, **compute)
