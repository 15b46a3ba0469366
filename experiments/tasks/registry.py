"""The kind of task that each name of `--config.task` stands for."""

from typing import Any

from albert_jax.config import AlbertConfig
from data_pipeline.tokenizers.albert import AlbertTokenizer
from experiments.tasks.choice import open_choice_task
from experiments.tasks.config import FinetuneConfig, TaskName
from experiments.tasks.span import open_span_task
from experiments.tasks.tagging import open_tagging_task
from experiments.tasks.task import FinetuningTask
from experiments.tasks.text import open_text_task

_OPENERS = {
    TaskName.SQUAD: open_span_task,
    TaskName.RACE: open_choice_task,
    TaskName.TAGGING: open_tagging_task,
}


def open_task(
    config: FinetuneConfig, model: AlbertConfig, tokenizer: AlbertTokenizer, **compute: Any
) -> FinetuningTask:
    """Read and encode the examples of a run, and make its model.

    Args:
        config: the run.
        model: configuration of the encoder.
        tokenizer: tokenizer of the encoder.
        compute: `dtype` and `execution` of the model.

    Raises:
        InputError: a file is missing or malformed.
    """
    return _OPENERS.get(config.task, open_text_task)(config, model, tokenizer, **compute)
