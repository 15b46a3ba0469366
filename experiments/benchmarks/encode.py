"""Speed of encoding texts into vectors, compared with transformers on the same texts."""

import functools
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax import Array
from jaxtyping import Float, Float32, PyTree

from albert_jax import AlbertModel
from data_pipeline.errors import InputError
from experiments.benchmarks.report import rounded
from experiments.benchmarks.timing import (
    Candidate,
    StepKind,
    Windows,
    repeat,
    speedup,
    time_candidates,
)
from experiments.benchmarks.torch import import_torch
from experiments.prediction.inference import Inference
from experiments.prediction.inputs import read_inputs
from experiments.prediction.task import LoadedModel, load_model
from experiments.tasks.raw_inputs import (
    PredictionOptions,
    RawInput,
    encode_texts,
    read_texts,
)

_TRANSFORMERS_BATCH = 32  # rows, sorted by length and padded to the longest
_TOLERANCE = 1e-3  # difference of vectors, whose numbers are between -1 and 1


class Encoder(NamedTuple):
    """A way to compute the pooled vectors of the texts, in order, and its tokenization alone."""

    system: str
    encode: Callable[[], Float32[np.ndarray, "texts hidden"]]
    tokenize: Callable[[], object]


def measure_encoding(
    model: str, texts: Path, *, max_texts: int, against_torch: bool, windows: Windows
) -> list[dict[str, Any]]:
    """Return rows of a table: texts per second, encoded with tokenization, and only tokenized.

    Everything is compiled before it is timed, and the tokenizers have seen all words, as in a long
    run. transformers loads our exported model; the vectors must agree.

    Args:
        model: a path for `from_pretrained`.
        texts: a file with one text a line, or JSON lines with a field `text`.
        max_texts: the largest number of them to use.
        against_torch: also measure transformers on torch.
        windows: how long each is timed.

    Raises:
        InputError: there is no model or no text, torch is missing, or the vectors disagree.
    """
    loaded = load_model(AlbertModel, PredictionOptions(model))
    inputs = read_texts(read_inputs(texts)[:max_texts], paired=False)
    encoders = [_ours(loaded, inputs)]
    if against_torch:
        encoders.append(_theirs(loaded, [given.text() for given in inputs]))
        check_agreement(*(encoder.encode() for encoder in encoders))
    parts = [(part, encoder) for part in ("encode", "tokenize") for encoder in encoders]
    candidates = [
        Candidate(encoder.system, StepKind.FORWARD, repeat(getattr(encoder, part)))
        for part, encoder in parts
    ]
    samples = time_candidates(candidates, windows)
    rows = []
    for number, (part, encoder) in enumerate(parts):
        last = samples[(number // len(encoders) + 1) * len(encoders) - 1]  # transformers, if any
        rows.append(
            {
                "system": encoder.system,
                "work": part,
                "texts": len(inputs),
                "texts_per_second": rounded(len(inputs) / statistics.median(samples[number])),
                "slowest": rounded(len(inputs) / max(samples[number])),
                "fastest": rounded(len(inputs) / min(samples[number])),
                "windows": windows.number,
                "times_rival": speedup(last, samples[number]) if against_torch else None,
            }
        )
    return rows


def _ours(loaded: LoadedModel, texts: Sequence[RawInput]) -> Encoder:
    inference = Inference(
        functools.partial(_pool, loaded.model),
        loaded.params,
        max_length=loaded.max_length,
    )
    tokenize = functools.partial(
        encode_texts, texts, loaded.tokenizer, max_length=loaded.max_length, truncate=True
    )
    return Encoder(
        "albert-jax", lambda: np.stack(inference.in_order(tokenize())).astype(np.float32), tokenize
    )


def _pool(model: AlbertModel, params: PyTree, batch: dict[str, Any]) -> Float[Array, "rows hidden"]:
    nothing_else = batch["input_ids"][:, :0]
    outputs: Any = model.apply({"params": params}, **batch, chosen_positions=nothing_else)
    return outputs.pooler_output


def _theirs(loaded: LoadedModel, texts: Sequence[str]) -> Encoder:
    torch, transformers = import_torch()
    with tempfile.TemporaryDirectory() as directory:
        exported = Path(directory) / "model"
        loaded.model.save_pretrained(exported, loaded.params, loaded.tokenizer)
        tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
        model = transformers.AutoModel.from_pretrained(exported, dtype=torch.float32).eval()

    def tokenize() -> list[dict[str, list[int]]]:
        columns = tokenizer(list(texts), truncation=True)
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    @torch.inference_mode()
    def encode() -> Float32[np.ndarray, "texts hidden"]:
        rows = tokenize()
        order = sorted(range(len(rows)), key=lambda number: len(rows[number]["input_ids"]))
        vectors = np.zeros((len(rows), model.config.hidden_size), np.float32)
        for start in range(0, len(order), _TRANSFORMERS_BATCH):
            chosen = order[start : start + _TRANSFORMERS_BATCH]
            batch = tokenizer.pad([rows[number] for number in chosen], return_tensors="pt")
            vectors[chosen] = model(**batch).pooler_output.numpy()
        return vectors

    return Encoder(f"transformers {transformers.__version__}", encode, tokenize)


def check_agreement(
    ours: Float32[np.ndarray, "texts hidden"], theirs: Float32[np.ndarray, "texts hidden"]
) -> None:
    """Check that both compute the same vectors, except for one text in a thousand.

    Raises:
        InputError: they differ.
    """
    differ = np.flatnonzero(np.abs(ours - theirs).max(axis=1) > _TOLERANCE)
    # Single precision may break a tie between two segmentations of a word either way.
    if len(differ) > len(ours) // 1000:
        raise InputError(
            f"transformers gives other vectors for {len(differ)} of {len(ours)} texts, the first "
            f"one is text {differ[0] + 1}"
        )
