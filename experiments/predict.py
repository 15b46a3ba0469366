r"""Uses a model: fills gaps, gives vectors, classifies, answers, and what else it was trained for.

    python -m experiments.predict --task=fill-mask --model=runs/base \
        --text="Paris is the [MASK] of France."
    python -m experiments.predict --task=encode --model=runs/base --input=texts.txt \
        --pooling=mean --output=vectors.npy
    python -m experiments.predict --task=classify --model=runs/base-sst2 \
        --text="a gorgeous, witty, seductive movie"
    python -m experiments.predict --task=answer --model=runs/base-squad1 \
        --question="When?" --context="In 1066 or so."

The model is whatever `from_pretrained` reads: a workdir, a Hugging Face directory, a released
checkpoint.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from absl import flags
from tqdm import tqdm

from albert_jax.durable_files import partial_name, write_atomically
from data_pipeline.errors import InputError
from experiments.cli.command import run
from experiments.cli.exit_codes import ExitCode
from experiments.prediction.finetuned import FINETUNED_TASKS
from experiments.prediction.inference import put_in_order
from experiments.prediction.inputs import RawInput, inputs_from_flags, read_inputs
from experiments.prediction.pretrained import PRETRAINING_TASKS
from experiments.prediction.task import (
    NumberedResults,
    Pooling,
    PredictionOptions,
    PredictionTask,
    Result,
)

TASKS: Mapping[str, PredictionTask] = {**PRETRAINING_TASKS, **FINETUNED_TASKS}

# Flags that are fields of an example, and may be repeated.
_FIELDS = ("text", "text_pair", "question", "context")
_EMBEDDING = "embedding"


def predict(
    task: PredictionTask,
    examples: list[RawInput],
    options: PredictionOptions,
    *,
    output: Path | None,
    as_json: bool,
) -> None:
    """Predicts, and writes or prints the results in the order of the examples.

    Args:
        task: what to predict.
        examples: of what.
        options: how.
        output: a `.npy` for vectors, a `.jsonl` for all else; None prints.
        as_json: print JSON objects, one a line, instead of words.
    """
    numbered = tqdm(
        task.predict(examples, options), total=len(examples), unit=" texts", disable=None
    )
    if output is None:
        for result in put_in_order(numbered, len(examples)):
            print(_to_json(result) if as_json else task.format(result))
    elif output.suffix == ".npy":
        _write_vectors(output, numbered, len(examples))
    else:
        results = put_in_order(numbered, len(examples))
        write_atomically(output, "".join(f"{_to_json(result)}\n" for result in results))


def _to_json(result: Result) -> str:
    return json.dumps(result, default=np.ndarray.tolist, ensure_ascii=False)


def _write_vectors(path: Path, numbered: NumberedResults, count: int) -> None:
    """Vectors float32 [examples, width], written as they come."""
    partial = partial_name(path)
    try:
        array = None
        for number, result in numbered:
            vector = np.asarray(result[_EMBEDDING], np.float32)
            if array is None:
                shape = (count, *vector.shape)
                array = np.lib.format.open_memmap(partial, "w+", np.float32, shape)
            array[number] = vector
        if array is not None:
            array.flush()
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def check_output(path: Path | None, task: str, overwrite: bool) -> None:
    """Whether results of a task can be written to a file.

    Raises:
        InputError: its name does not fit the task, it exists already, or its directory does not.
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


def _examples() -> list[RawInput]:
    given = {name: flags.FLAGS[name].value or [] for name in _FIELDS}
    if flags.FLAGS.option:
        given["options"] = [flags.FLAGS.option]
    if bool(flags.FLAGS.input) == any(given.values()):
        raise InputError("give either --text, which may be repeated, or --input=FILE")
    return read_inputs(Path(flags.FLAGS.input)) if flags.FLAGS.input else inputs_from_flags(given)


def main() -> ExitCode:
    """Reads the flags, predicts, and prints or writes."""
    task, output = flags.FLAGS.task, flags.FLAGS.output and Path(flags.FLAGS.output)
    check_output(output, task, flags.FLAGS.overwrite)
    options = PredictionOptions(
        model=flags.FLAGS.model,
        dtype=jnp.dtype(flags.FLAGS.dtype),
        truncate=flags.FLAGS.truncate,
        top_k=flags.FLAGS.top_k,
        pooling=Pooling(flags.FLAGS.pooling),
        null_threshold=flags.FLAGS.null_threshold,
    )
    predict(TASKS[task], _examples(), options, output=output, as_json=flags.FLAGS.json)
    if output is not None:
        print(f"{output} is written")
    return ExitCode.DONE


if __name__ == "__main__":
    flags.DEFINE_enum("task", None, list(TASKS), "what to do", required=True)
    flags.DEFINE_string("model", None, "workdir or directory of the model", required=True)
    flags.DEFINE_multi_string("text", None, "a text; may be repeated")
    flags.DEFINE_multi_string("text_pair", None, "the second text; likewise")
    flags.DEFINE_multi_string("question", None, "a question (answer, choose); likewise")
    flags.DEFINE_multi_string("context", None, "what it is about; likewise")
    flags.DEFINE_multi_string("option", None, "an option of a question (choose); four of them")
    flags.DEFINE_string("input", None, "a text a line (.txt), or a JSON object a line (.jsonl)")
    flags.DEFINE_string("output", None, "file to write: .jsonl, or .npy for encode")
    flags.DEFINE_boolean("overwrite", False, "replace the output if it exists")
    flags.DEFINE_boolean("json", False, "print a JSON object for each text instead of a table")
    flags.DEFINE_boolean("truncate", False, "cut off what the model has no positions for")
    flags.DEFINE_integer("top_k", 5, "candidates for each [MASK] or question", lower_bound=1)
    flags.DEFINE_enum("pooling", "pooled", list(Pooling), "which vector stands for a text (encode)")
    flags.DEFINE_float("null_threshold", None, "null score above which no answer is given (answer)")
    flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "what is computed in")
    run(main)
