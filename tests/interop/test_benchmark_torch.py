"""The benchmark's transformers models compute the same losses, vectors and texts as ours."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from random_inputs import random_batch
from tiny_decoders import draw_talkative_params, make_decoder

from albert_jax import AlbertConfig, AlbertForPreTraining, AlbertModel
from albert_jax.batch import FIELDS, PretrainingBatch
from albert_jax.tasks.pretraining import pretraining_objective
from albert_jax.training.config import OptimizerConfig
from albert_jax.training.losses import summarize
from data_pipeline import AlbertTokenizer
from data_pipeline.config import DataConfig
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.sentencepiece import train_sentencepiece
from experiments.benchmarks.encode import check_agreement, measure_encoding
from experiments.benchmarks.generate import Case, measure_generation
from experiments.benchmarks.timing import StepKind, Windows
from experiments.benchmarks.torch import (
    TorchVariant,
    gathered_loss,
    make_run,
    plain_loss,
    to_tensors,
    transformers_config,
)
from experiments.run.config import ExperimentConfig

pytestmark = pytest.mark.interop

CONFIG = AlbertConfig(
    vocab_size=23,
    embedding_size=6,
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=10,
    max_position_embeddings=13,
)
LENGTH = 11


def make_batch(rows):
    """A batch of pairs whose used slots have weight 1 and different positions."""
    drawn = random_batch(CONFIG, rows, LENGTH, np.random.default_rng(5))
    batch = {name: np.array(getattr(drawn, name)) for name in FIELDS}
    batch["input_ids"] = np.where(batch["sequence_ids"] > 0, batch["input_ids"], 0)
    for row in range(len(rows)):
        used = batch["masked_lm_weights"][row] > 0
        _, first = np.unique(batch["masked_lm_positions"][row], return_index=True)
        used &= np.isin(np.arange(len(used)), first)
        batch["masked_lm_weights"][row] = used
    return batch


@pytest.mark.parametrize("rows", [[[11], [7]], [[5, 6], [3, 2, 4]]], ids=["pairs", "packed"])
@pytest.mark.parametrize("fused", [False, True])
def test_both_losses_of_transformers_equal_ours(rows, fused, tmp_path):
    import torch
    import transformers

    packed = len(rows[0]) > 1
    torch.manual_seed(0)
    theirs = transformers.AlbertForPreTraining(transformers_config(CONFIG, fused=fused)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    batch = make_batch(rows)
    tensors = to_tensors(batch, packed=packed, device=torch.device("cpu"))
    theirs.save_pretrained(tmp_path)
    model, params = AlbertForPreTraining.from_pretrained(tmp_path)
    loss_fn = pretraining_objective(model).loss_fn
    ours = summarize(jax.jit(loss_fn, static_argnums=2)(params, PretrainingBatch(**batch), None))
    with torch.no_grad():
        assert float(gathered_loss(theirs, tensors)) == pytest.approx(ours["loss"], rel=1e-5)
        if not packed:  # theirs scores the order of one pair a row
            assert float(plain_loss(theirs, tensors)) == pytest.approx(ours["loss"], rel=1e-5)


def test_training_steps_train_and_forward_steps_do_not():
    import torch
    import transformers

    config = ExperimentConfig(
        model=CONFIG,
        data=DataConfig(max_seq_length=LENGTH, max_predictions_per_seq=3),
        optimizer=OptimizerConfig(learning_rate=1e-2, num_train_steps=10, num_warmup_steps=1),
        global_batch_size=2,
    )
    tensors = [to_tensors(make_batch([[11], [7]]), packed=False, device=torch.device("cpu"))]
    for row in (TorchVariant.EAGER, TorchVariant.GATHERED):
        model = transformers.AlbertForPreTraining(transformers_config(CONFIG))
        start = plain_loss(model, tensors[0]).item()
        forward, _ = make_run(config, model, tensors, row, StepKind.FORWARD)
        forward(20)
        assert plain_loss(model, tensors[0]).item() == start
        train, compile_seconds = make_run(config, model, tensors, row, StepKind.TRAIN)
        train(20)
        assert plain_loss(model, tensors[0]).item() < start - 0.5
        assert compile_seconds is None


def test_both_encode_texts_into_the_same_vectors(tmp_path):
    words = ["".join(letters) for letters in itertools.product("catnsober", repeat=3)]
    lines = [" ".join(words[n : n + 1 + n % 9]) for n in range(0, len(words), 7)]
    (tmp_path / "texts.txt").write_text("\n".join(lines))
    tokenizer = AlbertTokenizer(train_sentencepiece(tmp_path / "texts.txt", vocab_size=60))
    config = dataclasses.replace(CONFIG, vocab_size=60, max_position_embeddings=24)
    model = AlbertModel(config)
    model.save_pretrained(tmp_path / "model", model.initialize(jax.random.key(1)), tokenizer)
    rows = measure_encoding(
        str(tmp_path / "model"),
        tmp_path / "texts.txt",
        max_texts=50,
        against_torch=True,
        windows=Windows(2, 0.05),
    )
    assert [row["work"] for row in rows] == ["encode", "encode", "tokenize", "tokenize"]
    assert [row["texts"] for row in rows] == [50] * 4
    assert [row["times_rival"] for row in rows[1::2]] == [1, 1]
    for row in rows:
        assert 0 < row["slowest"] <= row["texts_per_second"] <= row["fastest"]
    vectors = np.zeros((3, 2), np.float32)
    with pytest.raises(InputError, match="other vectors for 1 of 3 texts, the first one is text 2"):
        check_agreement(vectors, vectors + np.array([[0], [0.1], [0]], np.float32))


def test_both_write_the_same_texts():
    model = make_decoder(pad_token_id=3)  # transformers' beam search turns 0 into the end token
    rows = measure_generation(
        model,
        draw_talkative_params(model),
        [Case(batch=5, source=6, beams=beams, new_tokens=12) for beams in (1, 3)],
        against_torch=True,
        windows=Windows(2, 0.05),
    )
    assert [row["beams"] for row in rows] == [1, 1, 3, 3]
    assert [row["compile_seconds"] is None for row in rows] == [False, True] * 2
    assert [row["times_rival"] for row in rows[1::2]] == [1, 1]
    assert all(row["times_rival"] > 0 for row in rows)
