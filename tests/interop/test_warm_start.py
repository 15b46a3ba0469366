"""A translator that starts from an ALBERT and a GPT-2 of transformers, and goes back there."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny_tasks
from tiny_vocabularies import write_byte_level

from albert_jax import AlbertModel
from albert_jax.config import AlbertConfig
from albert_jax.decoder.config import DecoderSizes
from albert_jax.devices.mesh import make_mesh
from albert_jax.generation.config import GenerationOptions
from albert_jax.pretrained import read_pretrained
from data_pipeline import AlbertTokenizer
from data_pipeline.generation.config import TargetsConfig
from data_pipeline.tokenizers.loading import load_tokenizer
from experiments.cli.exit_codes import ExitCode
from experiments.converting import Format, convert, read_generation_files
from experiments.finetune import finetune
from experiments.predict import TASKS
from experiments.run import execution
from experiments.tasks.raw_inputs import PredictionOptions, RawInput
from experiments.tasks.task_settings import TaskName

pytestmark = pytest.mark.interop


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of two steps with a rate that changes nothing."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    monkeypatch.setattr(execution, "make_mesh", lambda **_: make_mesh(devices=jax.devices()[:1]))
    tokenizer = tiny_tasks.write_tokenizer(tmp_path / "tokenizer")
    of_sources = AlbertTokenizer(load_tokenizer(tokenizer))
    config: AlbertConfig = tiny_tasks.tiny_model(of_sources.vocab_size)
    encoder = AlbertModel(config)
    params = encoder.initialize(jax.random.key(3))
    encoder.save_pretrained(
        tmp_path / "encoder", params, AlbertTokenizer(load_tokenizer(tokenizer))
    )
    torch.manual_seed(0)
    sizes = {"n_positions": 24, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_inner": 24}
    tokens = dict.fromkeys(("bos_token_id", "eos_token_id"), 263)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=264, **sizes, **tokens))
    gpt2.save_pretrained(tmp_path / "gpt2")
    write_byte_level(tmp_path / "gpt2")
    for split in ("train", "dev"):
        rows = [
            {"text": " ".join(words), "target": f"the {key}"}
            for words, key in tiny_tasks.sentences(20, ["good", "bad"], 1)
        ]
        table = tmp_path / f"{split}.jsonl"
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run: Any = tiny_tasks.make_finetuning(
        TaskName.TRANSLATION,
        tokenizer,
        steps=2,
        data={f"{split}_file": str(tmp_path / f"{split}.jsonl") for split in ("train", "dev")},
        evaluate_every=2,
        checkpoint_every=2,
        init_from=str(tmp_path / "encoder"),
        init_decoder_from=str(tmp_path / "gpt2"),
    )
    run = dataclasses.replace(
        run,
        targets=TargetsConfig(max_length=16, pad_token="<pad>"),
        decoder=DecoderSizes(dropout=0.0, rate_factor=2.0),
        decoding=GenerationOptions(num_beams=3, max_new_tokens=8),
        optimizer=dataclasses.replace(run.optimizer, learning_rate=1e-12, num_warmup_steps=0),
    )
    assert finetune(run, tmp_path / "run") is ExitCode.DONE
    return tmp_path / "run"


def test_both_parts_are_those_it_started_from(started: Path) -> None:
    from safetensors.numpy import load_file

    theirs = load_file(started.parent / "gpt2/model.safetensors")
    ours = read_pretrained(started)
    assert ours.decoder is not None
    assert (ours.decoder.vocab_size, ours.decoder.pad_token_id) == (265, 264)
    table = ours.params["decoder"]["word_embeddings"]["embedding"]
    np.testing.assert_allclose(table[:264], theirs["transformer.wte.weight"], atol=1e-6)
    np.testing.assert_allclose(table[264], table[:264].mean(0), atol=1e-6)
    wide = ours.params["decoder"]["layers"]["feed_forward"]["intermediate"]["kernel"]
    np.testing.assert_allclose(wide[1, 0], theirs["transformer.h.1.mlp.c_fc.weight"], atol=1e-6)
    encoder = read_pretrained(started.parent / "encoder").params["albert"]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours.params["albert"], encoder
    )


def test_transformers_writes_the_same_texts(started: Path) -> None:
    from transformers import AutoTokenizer, EncoderDecoderModel

    texts = ["word1 good word2", "bad", "word3 word4 word5 word6 bad"]
    given = [RawInput({"text": text}, text) for text in texts]
    found = dict(TASKS["translate"].predict(given, PredictionOptions(str(started))))
    there = started.parent / "there"
    stored, tokenizer = read_pretrained(started), AlbertTokenizer.from_pretrained(started)
    files = read_generation_files(started)
    convert(stored, tokenizer, Format.HUGGINGFACE, there, generation=files)
    model = EncoderDecoderModel.from_pretrained(there).eval()
    inputs = AutoTokenizer.from_pretrained(there)(texts, padding=True, return_tensors="pt")
    ids = model.generate(**inputs)
    targets = AutoTokenizer.from_pretrained(there / "target_tokenizer")
    expected = targets.batch_decode(ids, skip_special_tokens=True)
    assert [found[number]["generated"] for number in range(3)] == expected
