"""Exported models give the same results in transformers' pipelines."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import THREE, TINY, random_params

from albert_jax import AlbertForMaskedLM, AlbertForPreTraining, AlbertForSequenceClassification
from data_pipeline import AlbertTokenizer
from data_pipeline.tokenizers.sentencepiece import train_sentencepiece

pytestmark = pytest.mark.interop

CONFIG = dataclasses.replace(TINY, vocab_size=80, max_position_embeddings=40)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> AlbertTokenizer:
    words = ["".join(letters) for letters in itertools.product("catnsober", repeat=3)]
    file = tmp_path_factory.mktemp("vocabulary") / "sentences.txt"
    lines = [" ".join(words[n : n + 7]) + " 3,000." for n in range(0, len(words), 7)]
    file.write_text("\n".join(lines))
    return AlbertTokenizer(train_sentencepiece(file, vocab_size=80))


def export(model: Any, tokenizer: AlbertTokenizer, directory: Path) -> tuple[Any, Any]:
    model.save_pretrained(directory, random_params(model), tokenizer)
    return type(model).from_pretrained(directory)


def test_masks_are_filled_alike(tokenizer: AlbertTokenizer, tmp_path: Path) -> None:
    import transformers

    export(AlbertForPreTraining(CONFIG), tokenizer, tmp_path / "model")
    pipeline = transformers.pipeline("fill-mask", model=str(tmp_path / "model"), top_k=80)
    theirs = pipeline("the cat [MASK] on 3,000 boats.")
    model, params = AlbertForMaskedLM.from_pretrained(tmp_path / "model", strict=True)
    row = tokenizer("the cat [MASK] on 3,000 boats.", mask_words=True)
    (place,) = np.flatnonzero(row["input_ids"][0] == tokenizer.mask_id)
    logits = np.asarray(model.apply({"params": params}, **row).logits[0, place], np.float64)
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    assert len(theirs) == 80
    for guess in theirs:
        assert guess["score"] == pytest.approx(probabilities[guess["token"]], rel=1e-3)


def test_texts_are_classified_alike(tokenizer: AlbertTokenizer, tmp_path: Path) -> None:
    import transformers

    model, params = export(
        AlbertForSequenceClassification(CONFIG, THREE), tokenizer, tmp_path / "model"
    )
    pipeline = transformers.pipeline("text-classification", str(tmp_path / "model"), top_k=None)
    pair = {"text": "the cat sat", "text_pair": "on 3,000 boats."}
    theirs = {guess["label"]: guess["score"] for guess in pipeline(pair)}
    logits = np.asarray(
        model.apply({"params": params}, **tokenizer(pair["text"], pair["text_pair"])).logits[0]
    )
    probabilities = np.exp(logits) / np.exp(logits).sum()
    assert theirs == pytest.approx(dict(zip(THREE.labels, probabilities, strict=True)), rel=1e-3)
