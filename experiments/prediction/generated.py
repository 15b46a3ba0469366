"""Texts of models with a decoder: translations, summaries, and whatever else one was trained for.

The three task names do the same, and only tell the reader of a command what to expect. The options
are those that the model was saved with, unless a flag overrides them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import PyTree

from albert_jax.generation.config import GenerationOptions
from albert_jax.generation.decoding import generate
from albert_jax.generation.encoder_decoder import AlbertForConditionalGeneration
from albert_jax.generation.stored_options import read_generation_options
from albert_jax.interop.workdir import TARGET_TOKENIZER
from albert_jax.pretrained import directory_of
from albert_jax.settings import FieldError
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.targets.loading import load_target_tokenizer
from experiments.prediction.task import NumberedResults, PredictionTask, load_model
from experiments.tasks.raw_inputs import PredictionOptions, RawInput, encode_texts
from experiments.tasks.task import Result
from experiments.tasks.task_settings import TaskName

# The prediction that is suggested after training on a task.
GENERATED = {TaskName.TRANSLATION: "translate", TaskName.SUMMARIZATION: "summarize"}
_NUMBER = "example_ids"


def generation_tasks() -> dict[str, PredictionTask]:
    """Return the predictions of models with a decoder, by their name for `--task`."""
    return dict.fromkeys((*GENERATED.values(), "generate"), PredictionTask(_write, _format))


def _write(inputs: Sequence[RawInput], options: PredictionOptions) -> NumberedResults:
    texts = [RawInput({"text": _source(given)}, given.source) for given in inputs]
    loaded = load_model(AlbertForConditionalGeneration, options)
    directory = directory_of(options.model)
    targets = load_target_tokenizer(str(directory / TARGET_TOKENIZER))
    stored = read_generation_options(options.model) or GenerationOptions()
    written_with = _generation_options(options, stored, loaded.model)
    rows: list[dict[str, Any]] = [
        # Each row carries its number at every token, since what is sampled for a text depends on
        # the number, not on the batch.
        {**row, _NUMBER: np.full_like(row["input_ids"], number)}
        for number, row in enumerate(
            encode_texts(
                texts, loaded.tokenizer, max_length=loaded.max_length, truncate=options.truncate
            )
        )
    ]

    def write(model: Any, params: PyTree, batch: dict[str, Any]) -> dict[str, Any]:
        numbers = batch[_NUMBER][:, 0]
        sources = {name: array for name, array in batch.items() if name != _NUMBER}
        found = generate(model, params, sources, written_with, example_ids=numbers)
        return {"sequences": found.sequences, "score": found.scores}

    for number, outputs in loaded.infer(write, rows):
        text = targets.decode(outputs["sequences"])
        fields = dict(texts[number].fields)
        yield number, {**fields, "generated": text, "score": float(outputs["score"])}


def _source(given: RawInput) -> str:
    """Return the text to read, which may be empty or white space, as in files to train on.

    Raises:
        InputError: it is missing or not a text.
    """
    text = given.fields.get("text")
    return text if isinstance(text, str) else given.text()


def _generation_options(
    given: PredictionOptions, stored: GenerationOptions, model: AlbertForConditionalGeneration
) -> GenerationOptions:
    """Return the options in the model's files, overridden by those of the flags.

    A temperature turns off the stored beams, since the two cannot be combined.
    """
    flags = dict(given.generation)
    if flags.get("temperature") and "num_beams" not in flags:
        flags["num_beams"] = 1
    try:
        options = dataclasses.replace(stored, **flags)
        options.check(model.decoder_config)
    except FieldError as error:
        raise InputError(str(error.named(f"--{error.field}"))) from error
    return options


def _format(result: Result) -> str:
    return f"{result['text']}\n  {result['generated']}"
