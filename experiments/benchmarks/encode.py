"""Texts a second from strings to vectors, ours and transformers' on the same texts in turns."""

import functools
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from albert_jax import AlbertModel
from data_pipeline.errors import InputError
from experiments.benchmarks.report import rounded
from experiments.benchmarks.timing import Candidate, StepKind, time_candidates
from experiments.prediction.inference import Inference
from experiments.prediction.inputs import RawInput, read_inputs
from experiments.prediction.pretrained import embed_rows
from experiments.prediction.task import (
    LoadedModel,
    Pooling,
    PredictionOptions,
    load_model,
)

_ROWS_OF_THEIRS = 32  # of a batch, sorted by length and padded to its longest
_TOLERANCE = 1e-3  # by which vectors may differ, whose numbers are between -1 and 1


class Encoder(NamedTuple):
    """A way from the texts to their pooled vectors, in the texts' order, and its first part."""

    system: str
    encode: Callable[[], Float32[np.ndarray, "texts hidden"]]
    tokenize: Callable[[], object]


def measure_encoding(
    model: str,
    texts: Path,
    *,
    max_texts: int,
    against_torch: bool,
    num_windows: int,
    window_seconds: float,
) -> list[dict[str, Any]]:
    """Rows of a table: texts a second, tokenizing included, and of tokenizing alone.

    Everything is compiled before it is timed, and the tokenizers have met the words, as in a long
    run. transformers gets our model as we export it; the vectors must agree.

    Args:
        model: what `from_pretrained` reads.
        texts: a file with a text a line, or JSON lines with a field `text`.
        max_texts: how many of them are taken.
        against_torch: also measure transformers on torch.
        num_windows: windows of each.
        window_seconds: how long a window lasts at least, about.

    Raises:
        InputError: there is no model or no text, torch is missing, or the two do not agree.
    """
    loaded = load_model(AlbertModel, PredictionOptions(model))
    examples = read_inputs(texts)[:max_texts]
    encoders = [_ours(loaded, examples)]
    if against_torch:
        encoders.append(_theirs(loaded, [example.text() for example in examples]))
        check_agreement(*(encoder.encode() for encoder in encoders))
    parts = [(part, encoder) for part in ("encode", "tokenize") for encoder in encoders]
    candidates = [
        Candidate(
            encoder.system, StepKind.FORWARD, _repeat(getattr(encoder, part)), None, lambda: None
        )
        for part, encoder in parts
    ]
    samples = time_candidates(candidates, num_windows=num_windows, window_seconds=window_seconds)
    rows = []
    for number, (part, encoder) in enumerate(parts):
        last = samples[
            (number // len(encoders) + 1) * len(encoders) - 1
        ]  # the alternative's, if any
        rows.append(
            {
                "system": encoder.system,
                "work": part,
                "texts": len(examples),
                "texts_per_second": rounded(len(examples) / statistics.median(samples[number])),
                "slowest": rounded(len(examples) / max(samples[number])),
                "fastest": rounded(len(examples) / min(samples[number])),
                "windows": num_windows,
                "times_rival": _times(last, samples[number]) if against_torch else None,
            }
        )
    return rows


def _times(theirs: Sequence[float], ours: Sequence[float]) -> float | None:
    """How many times as fast, the median over turns."""
    return rounded(statistics.median(t / o for t, o in zip(theirs, ours, strict=True)), 3)


def _repeat(work: Callable[[], object]) -> Callable[[int], None]:
    def run(times: int) -> None:
        for _ in range(times):
            work()

    return run


def _ours(loaded: LoadedModel, examples: Sequence[RawInput]) -> Encoder:
    inference = Inference(
        functools.partial(embed_rows, loaded.model, pooling=Pooling.POOLED),
        loaded.params,
        max_length=loaded.model.config.max_position_embeddings,
    )
    tokenize = functools.partial(loaded.encode, examples, truncate=True)
    return Encoder(
        "albert-jax", lambda: np.stack(inference.in_order(tokenize())).astype(np.float32), tokenize
    )


def _theirs(loaded: LoadedModel, texts: Sequence[str]) -> Encoder:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise InputError(
            f"--against=torch needs torch and transformers (make test-interop): {error}"
        ) from error
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
        for start in range(0, len(order), _ROWS_OF_THEIRS):
            chosen = order[start : start + _ROWS_OF_THEIRS]
            batch = tokenizer.pad([rows[number] for number in chosen], return_tensors="pt")
            vectors[chosen] = model(**batch).pooler_output.numpy()
        return vectors

    return Encoder(f"transformers {transformers.__version__}", encode, tokenize)


def check_agreement(
    ours: Float32[np.ndarray, "texts hidden"], theirs: Float32[np.ndarray, "texts hidden"]
) -> None:
    """Whether both give the same vectors, but for a few texts that may be cut either way.

    Raises:
        InputError: they do not.
    """
    differ = np.flatnonzero(np.abs(ours - theirs).max(axis=1) > _TOLERANCE)
    # A tie between two ways to cut a word may go either way in single precision.
    if len(differ) > len(ours) // 1000:
        raise InputError(
            f"transformers gives other vectors for {len(differ)} of {len(ours)} texts, the first "
            f"one is text {differ[0] + 1}"
        )
