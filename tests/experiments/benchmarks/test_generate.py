"""The benchmark of generation: what it measures, and what it refuses to compare."""

import sys

import numpy as np
import pytest
from tiny_decoders import draw_talkative_params, make_decoder

from data_pipeline.errors import InputError
from experiments.benchmarks.generate import Case, check_texts, measure_generation
from experiments.benchmarks.timing import Windows

WINDOWS = Windows(2, 0.1)


def test_generation_is_measured_in_tokens_of_the_texts() -> None:
    model, case = make_decoder(), Case(batch=3, source=4, beams=2, new_tokens=5)
    params = draw_talkative_params(model)
    (row,) = measure_generation(model, params, [case], against_torch=False, windows=WINDOWS)
    assert {name: row[name] for name in case._fields} == case._asdict()
    assert row["vocabulary"] == 13
    assert row["compile_seconds"] > 0
    assert row["times_rival"] is None
    assert row["tokens_per_second"] == pytest.approx(15e3 / row["milliseconds"], rel=1e-2)
    assert row["slowest"] <= row["tokens_per_second"] <= row["fastest"]


def test_without_torch_nothing_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    model = make_decoder()
    with pytest.raises(InputError, match="--against=torch needs torch and transformers"):
        measure_generation(model, {}, [], against_torch=True, windows=WINDOWS)


def test_texts_are_compared_up_to_their_ends() -> None:
    """The start token may be the one that ends a text, as GPT-2's is."""
    ours = np.array([[2, 5, 2, 0], [2, 5, 6, 7], [2, 5, 6, 7]])
    check_texts(ours, np.array([[2, 5, 2, 9], [2, 5, 6, 7], [2, 5, 6, 7]]), end=2)
    other = np.array([[2, 5, 2, 9], [2, 5, 6, 8], [2, 4, 6, 7]])
    with pytest.raises(InputError, match="another text for 2 of 3 sources, the first one is sour"):
        check_texts(ours, other, end=2)
