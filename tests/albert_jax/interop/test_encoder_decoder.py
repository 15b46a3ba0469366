"""Directories of encoder-decoders and of GPT-2, without transformers."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_decoders import DECODER, SCALED, TIED, draw_params, make_decoder
from tiny_models import TINY, assert_same

from albert_jax import AlbertForConditionalGeneration, AlbertModel
from albert_jax.interop.names import WeightsError
from albert_jax.settings import FieldError

Class = AlbertForConditionalGeneration

KINDS: dict[str, dict[str, Any]] = {
    "none": {"n_inner": 5, "activation_function": "gelu_erf"},
    "all": {"parameter_sharing": "all", "n_layer": 3, **SCALED},
    "attention": {"parameter_sharing": "attention", "n_embd": 4, "n_head": 1},
    "ffn": {"parameter_sharing": "ffn"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_comes_back(kind: str, tmp_path: Path) -> None:
    model = make_decoder(**KINDS[kind])
    params = draw_params(model)
    model.save_pretrained(tmp_path / "saved", params)
    back, again = Class.from_pretrained(tmp_path / "saved")
    assert (back.config, back.decoder_config) == (model.config, model.decoder_config)
    assert_same(again, params)


def test_a_directory_has_the_names_and_layout_of_transformers(tmp_path: Path) -> None:
    model = make_decoder()
    params = draw_params(model)
    model.save_pretrained(tmp_path / "saved", params)
    tensors = load_file(tmp_path / "saved/model.safetensors")
    block = {"ln_1.weight": (6,), "ln_1.bias": (6,), "ln_2.weight": (6,), "ln_2.bias": (6,)}
    block |= {"ln_cross_attn.weight": (6,), "ln_cross_attn.bias": (6,)}
    for name, outputs in (("attn.c_attn", 18), ("attn.c_proj", 6), ("crossattention.q_attn", 6)):
        block |= {f"{name}.weight": (6, outputs), f"{name}.bias": (outputs,)}
    for name, outputs in (("crossattention.c_attn", 12), ("crossattention.c_proj", 6)):
        block |= {f"{name}.weight": (6, outputs), f"{name}.bias": (outputs,)}
    block |= {"mlp.c_fc.weight": (6, 24), "mlp.c_fc.bias": (24,)}
    block |= {"mlp.c_proj.weight": (24, 6), "mlp.c_proj.bias": (6,)}
    expected: dict[str, tuple[int, ...]] = {"wte.weight": (13, 6), "wpe.weight": (40, 6)}
    expected |= {"ln_f.weight": (6,), "ln_f.bias": (6,)}
    expected |= {f"h.{i}.{name}": shape for i in range(2) for name, shape in block.items()}
    expected = {f"decoder.transformer.{name}": shape for name, shape in expected.items()}
    expected |= {"enc_to_dec_proj.weight": (6, 4), "enc_to_dec_proj.bias": (6,)}
    found = {name: x.shape for name, x in tensors.items() if not name.startswith("encoder.")}
    assert found == expected
    assert "encoder.pooler.weight" in tensors and "encoder.embeddings.LayerNorm.bias" in tensors
    joined = tensors["decoder.transformer.h.1.crossattention.c_attn.weight"]
    cross = params["decoder"]["layers"]["cross_attention"]
    np.testing.assert_array_equal(joined[:, :6], cross["key"]["kernel"][1, 0])
    np.testing.assert_array_equal(joined[:, 6:], cross["value"]["kernel"][1, 0])
    config = json.loads((tmp_path / "saved/config.json").read_text())
    assert config["decoder"]["is_decoder"] and config["decoder"]["add_cross_attention"]
    generation = json.loads((tmp_path / "saved/generation_config.json").read_text())
    tokens = {"bos_token_id": 1, "decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    assert generation == tokens


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model = make_decoder()
    model.save_pretrained(tmp_path / "saved", draw_params(model))
    return tmp_path / "saved"


def edit(file: Path, **changes: Any) -> None:
    values = json.loads(file.read_text())
    for key, value in changes.items():
        group, _, name = key.rpartition("__")
        (values[group] if group else values)[name] = value
    file.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("generation_config.json", {"pad_token_id": 1}, "pad_token_id must be another token than"),
        (
            "generation_config.json",
            {"eos_token_id": [2, 3]},
            r"eos_token_id must be one token, got",
        ),
        (
            "config.json",
            {"model_type": "albert"},
            "has an encoder and no decoder",
        ),
        ("config.json", {"decoder__model_type": "bert"}, "the decoder must be gpt2, got 'bert'"),
        (
            "config.json",
            {"decoder__tie_word_embeddings": False},
            "tie_word_embeddings must be true",
        ),
        ("config.json", {"decoder__cross_attention_hidden_size": 4}, "is not supported"),
        ("config.json", {"decoder__n_head": 4}, r"n_embd must be a multiple of n_head \(4\)"),
        ("config.json", {"decoder__n_layer": "2"}, "n_layer must be a whole number"),
        ("config.json", {"decoder": 3}, "decoder must be an object, got 3"),
        (
            "config.json",
            {"decoder__n_inner": 5},
            r"mlp.c_fc.weight has shape \(6, 24\), its config",
        ),
    ],
)
def test_what_cannot_be_read_is_one_line(
    file: str, changes: dict[str, Any], message: str, saved: Path
) -> None:
    edit(saved / file, **changes)
    with pytest.raises(WeightsError, match=message) as raised:
        Class.from_pretrained(saved)
    assert "\n" not in str(raised.value)


def test_special_tokens_of_generation_go_first(saved: Path) -> None:
    edit(saved / "config.json", pad_token_id=5, decoder__pad_token_id=6)
    (saved / "generation_config.json").write_text('{"decoder_start_token_id": 4}')
    tokens = Class.from_pretrained(saved)[0].decoder_config
    assert (tokens.pad_token_id, tokens.bos_token_id, tokens.eos_token_id) == (5, 4, 2)


def test_a_missing_and_an_unknown_tensor_are_named(saved: Path) -> None:
    file = saved / "model.safetensors"
    tensors = load_file(file)
    tensors["decoder.other"] = tensors.pop("decoder.transformer.h.1.attn.c_attn.weight")
    save_file(tensors, file)
    with pytest.raises(WeightsError) as raised:
        Class.from_pretrained(saved)
    assert "decoder.other is unknown" in str(raised.value)
    assert "decoder.transformer.h.1.attn.c_attn.weight[key] is missing" in str(raised.value)


def test_what_transformers_does_not_have_is_not_written(tmp_path: Path) -> None:
    model = make_decoder(**TIED)
    with pytest.raises(WeightsError, match="transformers has no decoder with tie_to_encoder"):
        model.save_pretrained(tmp_path / "saved", draw_params(model))
    assert not (tmp_path / "saved").exists()


def write_gpt2(saved: Path, directory: Path, **changes: Any) -> dict[str, np.ndarray]:
    """Write the decoder in the form of GPT-2's first release: without a prefix, with buffers."""
    directory.mkdir()
    tensors = {
        name.removeprefix("decoder.transformer."): tensor
        for name, tensor in load_file(saved / "model.safetensors").items()
        if name.startswith("decoder.transformer.") and "cross" not in name
    }
    tensors["lm_head.weight"] = tensors["wte.weight"].copy()
    tensors["h.0.attn.bias"] = np.tril(np.ones((1, 1, 4, 4), np.float32))
    save_file(tensors, directory / "model.safetensors")
    values = json.loads((saved / "config.json").read_text())["decoder"] | changes
    for name in ("pad_token_id", "is_decoder", "add_cross_attention"):
        values.pop(name, None)
    (directory / "config.json").write_text(json.dumps(values))
    return tensors


def test_gpt2_alone_becomes_a_decoder(
    saved: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tensors = write_gpt2(saved, tmp_path / "gpt2")
    encoder = AlbertModel(TINY)
    of_encoder = encoder.initialize(jax.random.key(3))
    encoder.save_pretrained(tmp_path / "albert", of_encoder)
    paths = tmp_path / "albert", tmp_path / "gpt2"
    model, params = Class.from_encoder_decoder_pretrained(*paths, pad_token_id=0)
    assert model.decoder_config == DECODER
    assert_same(params["albert"], of_encoder)
    attention = params["decoder"]["layers"]["attention"]
    for layer in range(2):
        parts = np.split(tensors[f"h.{layer}.attn.c_attn.weight"], 3, axis=1)
        for name, part in zip(("query", "key", "value"), parts, strict=True):
            np.testing.assert_array_equal(attention[name]["kernel"][layer, 0], part)
    for fresh in ("decoder/layers/cross_attention/dense/kernel", "enc_to_dec_proj/kernel"):
        assert fresh in caplog.text
    assert "decoder/layers/attention" not in caplog.text

    with pytest.raises(WeightsError, match=r"pad_token_id is missing.*bos_token_id \(1\)"):
        Class.from_encoder_decoder_pretrained(*paths)
    with pytest.raises(FieldError, match="pad_token_id must be another token"):
        Class.from_encoder_decoder_pretrained(*paths, pad_token_id=1)
    with pytest.raises(WeightsError, match="layers differ, so parameter_sharing cannot be all"):
        Class.from_encoder_decoder_pretrained(*paths, pad_token_id=0, parameter_sharing="all")
    file = tmp_path / "gpt2/model.safetensors"
    save_file({**tensors, "lm_head.weight": tensors["wte.weight"] + 1}, file)
    with pytest.raises(WeightsError, match=r"lm_head\.weight must be equal to the word table"):
        Class.from_encoder_decoder_pretrained(*paths, pad_token_id=0)
