r"""Predict with a model: words for [MASK], vectors, similarity, labels, tags, answers, texts.

    python -m experiments.predict --task=fill-mask --model=runs/base \
        --text="Paris is the [MASK] of France."
    python -m experiments.predict --task=encode --model=runs/base --input=texts.txt \
        --pooling=mean --output=vectors.npy
    python -m experiments.predict --task=similarity --model=runs/base-nli \
        --text="A man eats." --text_pair="Someone is eating."
    python -m experiments.predict --task=classify --model=runs/base-sst2 \
        --text="a gorgeous, witty, seductive movie"
    python -m experiments.predict --task=answer --model=runs/base-squad1 \
        --question="When?" --context="In 1066 or so."
    python -m experiments.predict --task=translate --model=runs/multi30k \
        --input=captions.txt --output=translations.jsonl

The model is a path for `from_pretrained`: a workdir, a Hugging Face directory, or a released
checkpoint.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from absl import flags
from tqdm import tqdm

from albert_jax.config import Pooling
from albert_jax.durable_files import partial_name, write_atomically
from albert_jax.generation.config import GenerationOptions
from albert_jax.settings import own_settings
from data_pipeline.errors import InputError
from data_pipeline.terminal import say
from experiments.cli.command import run
from experiments.cli.exit_codes import ExitCode
from experiments.finetuning.report import best_run
from experiments.prediction.embeddings import EMBEDDING_TASKS
from experiments.prediction.finetuned import finetuned_tasks
from experiments.prediction.generated import generation_tasks
from experiments.prediction.inference import put_in_order
from experiments.prediction.inputs import choose_inputs
from experiments.prediction.pretrained import PRETRAINING_TASKS
from experiments.prediction.task import NumberedResults, PredictionTask
from experiments.tasks.raw_inputs import PredictionOptions, RawInput
from experiments.tasks.task import Result

TASKS: Mapping[str, PredictionTask] = {
    **PRETRAINING_TASKS,
    **EMBEDDING_TASKS,
    **finetuned_tasks(),
    **generation_tasks(),
}

# Flags that are fields of an input; they may be repeated.
_FIELDS = ("text", "text_pair", "question", "context")
_EMBEDDING = "embedding"
# Flags that are options of generation. A flag that is not given keeps the model's own value.
_GENERATION = (
    "max_new_tokens",
    "min_new_tokens",
    "num_beams",
    "length_penalty",
    "no_repeat_ngram_size",
    "temperature",
    "top_k",
    "top_p",
    "seed",
)
_CANDIDATES = 5  # by default, for each [MASK] or question


def predict(
    task: PredictionTask,
    inputs: list[RawInput],
    options: PredictionOptions,
    *,
    output: Path | None,
    as_json: bool,
) -> None:
    """Predict, and write or print the results in the order of the inputs.

    Args:
        task: the prediction.
        inputs: raw inputs.
        options: options of the prediction.
        output: a `.npy` file for embeddings, a `.jsonl` file otherwise; None prints the results.
        as_json: print JSON objects, one a line, instead of text.
    """
    count = len(inputs)
    numbered = tqdm(task.predict(inputs, options), total=count, unit=" texts", disable=None)
    if output is None:
        for result in put_in_order(numbered, count):
            print(_to_json(result) if as_json else task.format(result))
    elif output.suffix == ".npy":
        _write_vectors(output, numbered, count)
    else:
        results = put_in_order(numbered, count)
        write_atomically(output, "".join(f"{_to_json(result)}\n" for result in results))


def _to_json(result: Result) -> str:
    return json.dumps(result, default=np.ndarray.tolist, ensure_ascii=False)


def _write_vectors(path: Path, numbered: NumberedResults, count: int) -> None:
    """Write embeddings as float32 [inputs, hidden], each as soon as it is computed."""
    partial = partial_name(path)
    try:
        array = None
        for number, result in numbered:
            vector = np.asarray(result[_EMBEDDING], np.float32)
            if array is None:
                shape = (count, *vector.shape)
                array = np.lib.format.open_memmap(partial, "w+", np.float32, shape)
                with partial.open("r+b") as file:  # else a full disk would kill the process
                    os.posix_fallocate(file.fileno(), 0, partial.stat().st_size)
            array[number] = vector
        if array is not None:
            array.flush()
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def check_output(path: Path | None, task: str, overwrite: bool) -> None:
    """Check that results of a task can be written to a file.

    Raises:
        InputError: its suffix does not fit the task, it exists already and is not to be
            overwritten, or its directory does not exist.
    """
    if path is None:
        return
    suffix = ".npy" if task == "encode" else ".jsonl"
    if path.suffix != suffix:
        raise InputError(f"--output={path} must end in {suffix} for --task={task}")
    if path.exists() and not overwrite:
        raise InputError(f"--output={path} exists already; --overwrite replaces it")
    if not path.parent.is_dir():
        raise InputError(f"--output={path}: there is no directory {path.parent}")


def choose_model(path: str) -> str:
    """Return the best run of a fine-tuning with several seeds or rates, or else the path itself.

    A line on standard error names the chosen run.

    Example: ``runs/base-sst2`` gives ``runs/base-sst2/seed_12346``.
    """
    found = best_run(path)
    if found is None:
        return path
    directory, report = found
    say(f"{path} has several runs: {directory.name} is the best ({report.value:.4f})")
    return str(directory)


def _inputs() -> list[RawInput]:
    given = {name: flags.FLAGS[name].value or [] for name in _FIELDS}
    if flags.FLAGS.option:
        given["options"] = [flags.FLAGS.option]
    return choose_inputs(given, flags.FLAGS.input and Path(flags.FLAGS.input))


def main() -> ExitCode:
    """Read the flags, predict, and print or write the results."""
    task = flags.FLAGS.task
    output = Path(flags.FLAGS.output) if flags.FLAGS.output is not None else None
    check_output(output, task, flags.FLAGS.overwrite)
    options = PredictionOptions(
        model=choose_model(flags.FLAGS.model),
        dtype=jnp.dtype(flags.FLAGS.dtype),
        truncate=flags.FLAGS.truncate,
        top_k=_CANDIDATES if flags.FLAGS.top_k is None else flags.FLAGS.top_k,
        pooling=Pooling(flags.FLAGS.pooling) if flags.FLAGS.pooling else None,
        null_threshold=flags.FLAGS.null_threshold,
        generation={
            name: value for name in _GENERATION if (value := flags.FLAGS[name].value) is not None
        },
    )
    predict(TASKS[task], _inputs(), options, output=output, as_json=flags.FLAGS.json)
    if output is not None:
        print(f"wrote {output}")
    return ExitCode.DONE


def define_generation_flags() -> None:
    """Define a flag for each option of generation except `top_k`, with the option's help."""
    for one in own_settings(GenerationOptions):
        if one.name in _GENERATION and one.name != "top_k":
            define = flags.DEFINE_integer if one.kind is int else flags.DEFINE_float
            define(
                one.name,
                None,
                f"{one.help}; none: the model's own (translate, summarize, generate)",
            )


if __name__ == "__main__":
    flags.DEFINE_enum("task", None, list(TASKS), "the prediction", required=True)
    flags.DEFINE_string("model", None, "workdir or directory of the model", required=True)
    flags.DEFINE_multi_string("text", None, "a text; may be repeated")
    flags.DEFINE_multi_string("text_pair", None, "the second text; may be repeated")
    flags.DEFINE_multi_string("question", None, "a question (answer, choose); may be repeated")
    flags.DEFINE_multi_string("context", None, "the text it is about; may be repeated")
    flags.DEFINE_multi_string("option", None, "an option of a question (choose); four of them")
    flags.DEFINE_string(
        "input", None, "file with one text (.txt) or one JSON object (.jsonl) per line"
    )
    flags.DEFINE_string("output", None, "file to write: .jsonl, or .npy for encode")
    flags.DEFINE_boolean("overwrite", False, "replace the output if it exists")
    flags.DEFINE_boolean("json", False, "print a JSON object for each input")
    flags.DEFINE_boolean("truncate", False, "cut texts that are longer than the model's positions")
    flags.DEFINE_integer(
        "top_k",
        None,
        f"candidates for each [MASK] or question (by default {_CANDIDATES}); of a decoder, sample "
        "from this many tokens",
        lower_bound=1,
    )
    flags.DEFINE_enum(
        "pooling",
        None,
        list(Pooling),
        "the vector that represents a text; none: the model's own, else pooled (encode) or mean "
        "(similarity)",
    )
    flags.DEFINE_float("null_threshold", None, "null score above which there is no answer (answer)")
    flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "type of the computation")
    define_generation_flags()
    run(main)
