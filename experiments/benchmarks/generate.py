"""Speed of generation, compared with transformers on the same model, sources and text lengths."""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int, PyTree

from albert_jax import (
    AlbertConfig,
    AlbertForConditionalGeneration,
    GenerationOptions,
    Gpt2Config,
    generate,
)
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

_WIDTH, _LAYERS, _HEADS = 512, 6, 8  # of the base Transformer of Vaswani et al. 2017
_LONGEST = 512
_DEVIATION = 0.1  # of weights; enough for texts to differ and not repeat one token
_SEED = 0

Tokens = Int[np.ndarray, "batch longest"]


class Case(NamedTuple):
    """The shape of what is generated."""

    batch: int  # sources
    source: int  # tokens of each
    beams: int
    new_tokens: int  # of each text, exactly


def random_translator(vocab_size: int) -> tuple[AlbertForConditionalGeneration, PyTree]:
    """Return an encoder-decoder of the size of a translator, with random parameters.

    The encoder's layers are shared, the decoder's are not.
    """
    encoder = AlbertConfig(
        vocab_size=vocab_size,
        hidden_size=_WIDTH,
        num_hidden_layers=_LAYERS,
        num_attention_heads=_HEADS,
        intermediate_size=4 * _WIDTH,
        max_position_embeddings=_LONGEST,
    )
    decoder = Gpt2Config(
        vocab_size=vocab_size,
        n_positions=_LONGEST,
        n_embd=_WIDTH,
        n_layer=_LAYERS,
        n_head=_HEADS,
        initializer_range=_DEVIATION,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    model = AlbertForConditionalGeneration(encoder, decoder)
    return model, model.initialize(jax.random.key(_SEED))


def measure_generation(
    model: AlbertForConditionalGeneration,
    params: PyTree,
    cases: Sequence[Case],
    *,
    against_torch: bool,
    windows: Windows,
) -> list[dict[str, Any]]:
    """Return rows of a table: tokens per second of the texts that are returned, and compile time.

    All texts have the same length, because the token that ends a text is banned before that length.
    transformers loads our exported model, caches keys and values too, and must write the same
    texts.

    Args:
        model: the model.
        params: its parameters.
        cases: what is generated.
        against_torch: also measure transformers on torch.
        windows: how long each is timed.

    Raises:
        InputError: torch is missing, or transformers writes other texts.
        FieldError: the model cannot write such texts.
    """
    theirs = _load_theirs(model, params) if against_torch else None
    rows = []
    for case in cases:
        rng = np.random.default_rng(_SEED)
        ids = rng.integers(model.config.vocab_size, size=(case.batch, case.source), dtype=np.int32)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        writers = [("albert-jax", _our_writer(model, params, inputs, case))]
        if theirs is not None:
            writers.append((theirs.system, theirs.writer(inputs, case)))
        rows += _measure(case, writers, model.decoder_config, windows)
    return rows


def _measure(
    case: Case,
    writers: Sequence[tuple[str, Callable[[], Tokens]]],
    decoder: Gpt2Config,
    windows: Windows,
) -> list[dict[str, Any]]:
    candidates, texts = [], []
    for number, (system, write) in enumerate(writers):
        started = time.perf_counter()
        texts.append(write())
        seconds = None if number else time.perf_counter() - started  # torch compiles nothing
        candidates.append(Candidate(system, StepKind.FORWARD, repeat(write), seconds))
    for others in texts[1:]:
        check_texts(texts[0], others, decoder.eos_token_id)
    samples = time_candidates(candidates, windows)
    tokens = case.batch * case.new_tokens
    return [
        {
            "system": candidate.system,
            **case._asdict(),
            "vocabulary": decoder.vocab_size,
            "tokens_per_second": rounded(tokens / statistics.median(seconds)),
            "slowest": rounded(tokens / max(seconds)),
            "fastest": rounded(tokens / min(seconds)),
            "milliseconds": rounded(1e3 * statistics.median(seconds)),
            "windows": windows.number,
            "compile_seconds": rounded(candidate.compile_seconds, 3),
            "times_rival": speedup(samples[-1], seconds) if len(writers) > 1 else None,
        }
        for candidate, seconds in zip(candidates, samples, strict=True)
    ]


def _our_writer(
    model: AlbertForConditionalGeneration, params: PyTree, inputs: dict[str, Any], case: Case
) -> Callable[[], Tokens]:
    options = GenerationOptions(
        max_new_tokens=case.new_tokens, min_new_tokens=case.new_tokens, num_beams=case.beams
    )
    return lambda: np.asarray(generate(model, params, inputs, options).sequences)


class _Theirs(NamedTuple):
    system: str
    model: Any

    def writer(self, inputs: dict[str, Any], case: Case) -> Callable[[], Tokens]:
        torch, _ = import_torch()
        device = self.model.device
        tensors = {name: torch.tensor(x, device=device).long() for name, x in inputs.items()}

        @torch.inference_mode()
        def write() -> Tokens:
            tokens: Tokens = (
                self.model.generate(
                    **tensors,
                    min_new_tokens=case.new_tokens,
                    max_new_tokens=case.new_tokens,
                    num_beams=case.beams,
                    do_sample=False,
                )
                .cpu()
                .numpy()
            )
            return tokens

        return write


def _load_theirs(model: AlbertForConditionalGeneration, params: PyTree) -> _Theirs:
    """Return transformers' model, on torch's GPU if it has one, otherwise on all of its threads."""
    torch, transformers = import_torch()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as directory:
        exported = Path(directory) / "model"
        model.save_pretrained(exported, params)
        theirs = transformers.EncoderDecoderModel.from_pretrained(exported, dtype=torch.float32)
    return _Theirs(f"transformers {transformers.__version__}", theirs.to(device).eval())


def check_texts(ours: Tokens, theirs: Tokens, end: int) -> None:
    """Check that both wrote the same texts, up to the token that ends them.

    Raises:
        InputError: they differ.
    """

    def until_end(tokens: Tokens) -> list[int]:
        return [tokens[0], *itertools.takewhile(lambda token: token != end, tokens[1:])]

    pairs = enumerate(zip(ours, theirs, strict=True), start=1)
    differ = [number for number, (a, b) in pairs if until_end(a) != until_end(b)]
    if differ:
        raise InputError(
            f"transformers writes another text for {len(differ)} of {len(ours)} sources, the first "
            f"one is source {differ[0]}"
        )
