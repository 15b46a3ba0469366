"""Starting points: they have the run's own vocabulary, or embeddings are initialized."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import TINY, UNTIED, assert_same, make_model, random_params

from albert_jax import AlbertForPreTraining
from albert_jax.interop.stored_weights import flatten
from albert_jax.interop.tensorflow_checkpoint import write_tensorflow
from albert_jax.settings import FieldError
from data_pipeline import AlbertTokenizer
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.added_tokens import AddedToken
from data_pipeline.tokenizers.wordpiece import WordPieceTokenizer
from experiments.run.config import InitEmbeddings, TrainingRunConfig
from experiments.run.initial_parameters import (
    check_vocabulary,
    open_initial_weights,
    read_initial_parameters,
)

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("one", "two", "three", "four", "five", "six")
OF_VOCABULARY = {"albert/embeddings/word_embeddings/embedding", "predictions/bias"}


def make_tokenizer(*words: str, **settings: Any) -> WordPieceTokenizer:
    return WordPieceTokenizer([*SPECIAL, *words], **settings)


def write_model(path: Path, tokenizer: Any = None, **changes: Any) -> Any:
    """Write a Hugging Face directory, and return its parameters."""
    model = make_model("ForPreTraining", changes, None)
    params = random_params(model)
    model.save_pretrained(path, params, tokenizer and AlbertTokenizer(tokenizer))
    return params


@pytest.mark.parametrize(
    ("ours", "difference"),
    [
        (make_tokenizer(*WORDS), None),
        (make_tokenizer(*WORDS[::-1]), "6 of 11 ids differ, such as 5, 'one' there and 'six' here"),
        (make_tokenizer(*WORDS, "seven"), "11 tokens there, 12 here"),
        (make_tokenizer(*WORDS, lower_case=False), "lower_case is True there, False here"),
        (make_tokenizer(*WORDS, keep_accents=True), "keep_accents is False there, True here"),
        (make_tokenizer(*WORDS, added_tokens=[AddedToken("six")]), "other tokens stay whole"),
    ],
)
def test_another_vocabulary_is_refused(ours, difference, tmp_path, caplog):
    write_model(tmp_path / "model", make_tokenizer(*WORDS))
    path = str(tmp_path / "model")

    def check(embeddings: InitEmbeddings) -> None:
        check_vocabulary(path, ours, embeddings, whose="corpus X")

    if difference is None:
        check(InitEmbeddings.STORED)
        assert not caplog.records
        return
    with pytest.raises(InputError) as error:
        check(InitEmbeddings.STORED)
    assert str(error.value).startswith(
        f"--config.run.init_from={path} has another vocabulary than corpus X: {difference}"
    )
    assert "--config.run.init_embeddings=fresh initializes" in str(error.value)
    check(InitEmbeddings.FRESH)
    assert f"has another vocabulary than corpus X: {difference}" in caplog.text


def test_without_a_tokenizer_the_run_warns(tmp_path, caplog):
    write_model(tmp_path / "model")
    ours = make_tokenizer(*WORDS)
    check_vocabulary(str(tmp_path / "model"), ours, InitEmbeddings.STORED, whose="corpus X")
    assert "has no tokenizer: take care that it is that of corpus X" in caplog.text


def test_released_directories_do_not_say_how_case_is_treated(tmp_path):
    write_tensorflow(tmp_path, flatten(random_params(AlbertForPreTraining(TINY))), TINY)
    (tmp_path / "vocab.txt").write_bytes(make_tokenizer(*WORDS).vocabulary_bytes())
    cased = make_tokenizer(*WORDS, lower_case=False, keep_accents=True)
    check_vocabulary(str(tmp_path), cased, InitEmbeddings.STORED, whose="corpus X")
    with pytest.raises(InputError, match="6 of 11 ids differ"):
        other = make_tokenizer(*WORDS[::-1])
        check_vocabulary(str(tmp_path), other, InitEmbeddings.STORED, whose="corpus X")


@pytest.mark.parametrize("changes", [{}, UNTIED], ids=["tied", "untied"])
@pytest.mark.parametrize("vocab_size", [11, 13])
def test_fresh_embeddings_leave_everything_else(changes, vocab_size, tmp_path, caplog):
    write_model(tmp_path / "model", **changes)
    stored = open_initial_weights(str(tmp_path / "model"))
    params = stored.read_all()
    model = make_model("ForPreTraining", {"vocab_size": vocab_size, **changes}, None)
    found = flatten(read_initial_parameters(stored, model, seed=3, embeddings=InitEmbeddings.FRESH))
    fresh = {name for name in found if name in OF_VOCABULARY or "decoder" in name}
    assert len(fresh) == 2 + bool(changes)
    for name in found.keys() - fresh:
        assert_same(found[name], params[name])
    for name in fresh - {"predictions/bias"}:
        assert found[name].shape[0] == vocab_size
        assert 0 < np.std(found[name]) < 0.03
    assert not found["predictions/bias"].any()
    listed = caplog.records[-1].getMessage()
    assert listed.endswith(f"at random from seed 3: {', '.join(sorted(fresh))}")
    if vocab_size != 11:
        with pytest.raises(InputError, match="word_embeddings/embedding has shape"):
            read_initial_parameters(stored, model, seed=3)


def test_fresh_embeddings_need_a_model():
    with pytest.raises(FieldError, match="init_embeddings must be stored without init_from"):
        TrainingRunConfig(init_embeddings=InitEmbeddings.FRESH)
