"""Encoder-decoders against transformers' EncoderDecoderModel: values, gradients and texts.

Our model writes a directory that transformers loads; transformers writes it back, with its
gradients beside it, and our model reads both. Where layers share parameters, transformers repeats
them, and our gradient is the sum of theirs. As in `test_transformers`, token ids of sources are at
least 1. Padding of targets is not 0, which transformers' beam search turns into the end token.
"""

import dataclasses
import functools
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_decoders import draw_params, draw_talkative_params

from albert_jax import (
    AlbertConfig,
    AlbertForConditionalGeneration,
    AlbertModel,
    GenerationOptions,
    Gpt2Config,
    generate,
)
from albert_jax.generation.processors import restrict, warp
from albert_jax.interop.stored_weights import flatten

pytestmark = [
    pytest.mark.interop,
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*"),  # of its loss: it is right
]

ENCODER = AlbertConfig(
    vocab_size=23,
    embedding_size=6,
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=10,
    max_position_embeddings=13,
)
DECODER = Gpt2Config(
    vocab_size=19,
    n_positions=12,
    n_embd=8,
    n_layer=2,
    n_head=2,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=3,
)
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "unscaled": {"scale_attn_weights": False},
    "scaled by layer, other sizes": {
        "scale_attn_by_inverse_layer_idx": True,
        "n_inner": 7,
        "activation_function": "relu",
        "layer_norm_epsilon": 1e-3,
    },
    "shared": {"parameter_sharing": "all", "n_layer": 3},
    "shared attention, equal sizes": {"parameter_sharing": "attention", "n_embd": 12},
}


def make_model(dtype: Any = np.float64, **changes: Any) -> AlbertForConditionalGeneration:
    return AlbertForConditionalGeneration(ENCODER, dataclasses.replace(DECODER, **changes), dtype)


def load_theirs(directory: Path) -> Any:
    """transformers' model of a directory, which has all that it needs and no more."""
    import torch
    import transformers

    torch.set_num_threads(1)
    theirs, report = transformers.EncoderDecoderModel.from_pretrained(
        directory, dtype=torch.float64, output_loading_info=True
    )
    assert not any(report.values()), report
    head = theirs.decoder.get_output_embeddings()
    assert head.weight is theirs.decoder.get_input_embeddings().weight
    return theirs.eval()


def draw_inputs(batch: int, seed: int) -> dict[str, np.ndarray]:
    """Sources of different lengths with two segments."""
    rng, places = np.random.default_rng(seed), np.arange(11)[None]
    ends = rng.integers(2, 12, size=(batch, 1))
    ends[0] = 11
    inputs = {
        "input_ids": np.where(places < ends, rng.integers(1, 23, size=(batch, 11)), 0),
        "attention_mask": places < ends,
        "token_type_ids": (places >= ends // 2) & (places < ends),
    }
    return {name: array.astype(np.int32) for name, array in inputs.items()}


def as_tensors(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    import torch

    return {name: torch.tensor(np.asarray(array)).long() for name, array in arrays.items()}


def run_theirs(theirs: Any, inputs: dict[str, np.ndarray], labels: np.ndarray) -> Any:
    """Return logits and loss; gradients are left in the parameters."""
    outputs = theirs(**as_tensors({**inputs, "labels": labels}))
    outputs.loss.backward()
    return outputs.logits.detach().numpy(), float(outputs.loss.detach())


def run_ours(model: Any, params: Any, inputs: dict[str, np.ndarray], labels: np.ndarray) -> Any:
    """Return logits, loss and gradients."""
    shifted = np.roll(labels, 1, axis=1)
    shifted[:, 0] = DECODER.bos_token_id
    targets = np.where(shifted < 0, DECODER.pad_token_id, shifted).astype(np.int32)
    rows, places = np.nonzero(labels >= 0)

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def compute(params: Any) -> Any:
        def loss(params: Any) -> Any:
            outputs = model.apply({"params": params}, **inputs, decoder_input_ids=targets)
            log_probs = jax.nn.log_softmax(outputs.logits)
            return -log_probs[rows, places, labels[rows, places]].mean(), outputs.logits

        return jax.value_and_grad(loss, has_aux=True)(params)

    (loss, logits), gradients = compute(params)
    return logits, loss, gradients


def read_gradients(theirs: Any, saved: Path, directory: Path) -> dict[str, np.ndarray]:
    """Return transformers' gradients by our names, those of each layer."""
    import torch
    from safetensors.torch import save_file

    directory.mkdir()
    shutil.copy(saved / "config.json", directory)
    gradients = {name: leaf.grad for name, leaf in theirs.named_parameters()}
    unused = {name for name, gradient in gradients.items() if gradient is None}
    assert unused == {"encoder.pooler.weight", "encoder.pooler.bias"}
    zeros = {name: torch.zeros_like(dict(theirs.named_parameters())[name]) for name in unused}
    everything = {**gradients, **zeros}
    everything = {name: tensor.contiguous() for name, tensor in everything.items()}
    save_file(everything, directory / "model.safetensors")
    model, tree = AlbertForConditionalGeneration.from_pretrained(directory, dtype=np.float64)
    assert model.decoder_config.parameter_sharing == "none"
    return flatten(tree)


@pytest.mark.parametrize("name", CASES)
def test_logits_losses_and_gradients_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    model, inputs = make_model(**CASES[name]), draw_inputs(4, 1)
    rng = np.random.default_rng(2)
    labels = rng.integers(4, 19, size=(4, 7))
    labels[np.arange(7)[None] >= np.array([[7], [4], [6], [1]])] = -100
    with jax.enable_x64(True):
        params = draw_params(model, dtype=np.float64)
        model.save_pretrained(tmp_path / "there", params)
        theirs = load_theirs(tmp_path / "there")
        theirs.save_pretrained(tmp_path / "back")
        back, again = AlbertForConditionalGeneration.from_pretrained(
            tmp_path / "back", dtype=np.float64
        )
        assert (back.config, back.decoder_config) == (model.config, model.decoder_config)
        jax.tree.map(np.testing.assert_array_equal, again, params)
        expected, expected_loss = run_theirs(theirs, inputs, labels)
        logits, loss, gradients = run_ours(model, params, inputs, labels)
        expected_gradients = read_gradients(theirs, tmp_path / "back", tmp_path / "gradients")
    close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9)
    real = labels >= 0  # elsewhere transformers hides the padding that is there
    close(logits[real], expected[real])
    close(loss, expected_loss)
    ours = flatten(gradients)
    assert set(ours) == set(expected_gradients)
    for path, gradient in ours.items():
        wanted = expected_gradients[path]
        if path.startswith("decoder/layers/") and len(gradient) < len(wanted):
            wanted = np.asarray(wanted).sum(0, keepdims=True)
        close(gradient, wanted, err_msg=path)


SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "greedy, bans": {"no_repeat_ngram_size": 2, "min_new_tokens": 4},
    "default": {"num_beams": 4},
    "early": {"num_beams": 3, "early_stopping": True, "length_penalty": 2.0},
    "never": {"num_beams": 3, "early_stopping": "never", "length_penalty": 1.5},
    "never, short": {"num_beams": 2, "early_stopping": "never", "length_penalty": -0.5},
    "sums": {"num_beams": 5, "length_penalty": 0.0, "min_new_tokens": 3},
    "bigrams": {"num_beams": 4, "no_repeat_ngram_size": 2, "length_penalty": 0.7},
    "unigrams": {"num_beams": 2, "no_repeat_ngram_size": 1, "early_stopping": True},
    "one token": {"num_beams": 4, "max_new_tokens": 1},
    "half of the vocabulary": {"num_beams": 9, "max_new_tokens": 6},
}


def until_end(tokens: Any) -> list[int]:
    """A text up to the token that ends it."""
    text = np.asarray(tokens).tolist()
    end = DECODER.eos_token_id
    return text[: text.index(end) + 1] if end in text else text


@pytest.fixture(scope="module")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two models, each here and there, whose texts end at different lengths."""
    found = []
    with jax.enable_x64(True):
        for seed, changes in enumerate(({}, CASES["shared"])):
            model = make_model(**changes)
            params = draw_talkative_params(model, seed, np.float64)
            params["enc_to_dec_proj"]["kernel"] *= 3
            directory = tmp_path_factory.mktemp("talkative") / "there"
            model.save_pretrained(directory, params)
            found.append((model, params, load_theirs(directory)))
    return found


@pytest.mark.parametrize("name", SEARCHES)
def test_texts_and_scores_are_those_of_transformers(name: str, talkative: Any) -> None:
    import torch

    chosen = {"max_new_tokens": 11, **SEARCHES[name]}
    ours = {
        key: str(value).lower() if key == "early_stopping" else value
        for key, value in chosen.items()
    }
    for seed, (model, params, theirs) in enumerate(talkative):
        inputs = draw_inputs(12, 10 + seed)
        with torch.no_grad():
            expected = theirs.generate(
                **as_tensors(inputs),
                **chosen,
                do_sample=False,
                return_dict_in_generate=True,
                output_scores=True,
            )
        with jax.enable_x64(True):
            output = generate(model, params, inputs, GenerationOptions(**ours))
        texts = [until_end(row) for row in output.sequences]
        wanted = [until_end(row) for row in expected.sequences.numpy()]
        assert texts == wanted
        if ours.get("num_beams", 1) > 1:
            scores = expected.sequences_scores.numpy()
            np.testing.assert_allclose(output.scores, scores, rtol=1e-4, atol=1e-4)
        assert name != "default" or len(set(map(tuple, texts))) > 1


def test_special_tokens_of_a_saved_model_come_back(talkative: Any, tmp_path: Path) -> None:
    """Those with which transformers generates, wherever it has written them."""
    model, _, theirs = talkative[0]
    theirs.save_pretrained(tmp_path / "back")
    tokens = theirs.generation_config
    assert tokens.decoder_start_token_id == DECODER.bos_token_id
    assert (tokens.eos_token_id, tokens.pad_token_id) == (2, 3)
    with jax.enable_x64(True):
        back, _ = AlbertForConditionalGeneration.from_pretrained(tmp_path / "back")
    assert back.decoder_config == model.decoder_config


def test_kept_tokens_are_those_of_transformers() -> None:
    import torch
    from transformers.generation import logits_process

    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(300, 40)).astype(np.float32)
    tokens = rng.integers(0, 5, size=(300, 9)).astype(np.int32)
    for top_k, top_p, temperature in ((7, 1.0, 0.5), (0, 0.8, 1.3), (9, 0.5, 0.9), (50, 0.05, 1.0)):
        options = GenerationOptions(temperature=temperature, top_k=top_k, top_p=top_p)
        expected = logits_process.TemperatureLogitsWarper(temperature)(None, torch.tensor(logits))
        if top_k:
            expected = logits_process.TopKLogitsWarper(top_k)(None, expected)
        if top_p < 1:
            expected = logits_process.TopPLogitsWarper(top_p)(None, expected)
        np.testing.assert_allclose(warp(jnp.asarray(logits), options), expected, rtol=1e-6)
    for size in (1, 2, 3):
        ban = logits_process.NoRepeatNGramLogitsProcessor(size)
        options = GenerationOptions(no_repeat_ngram_size=size)
        for length in (1, 4, 8):
            expected = ban(torch.tensor(tokens[:, :length]).long(), torch.tensor(logits))
            actual = restrict(
                jnp.asarray(logits), jnp.asarray(tokens), jnp.int32(length), 2, options
            )
            np.testing.assert_array_equal(actual, expected)


def test_gpt2_alone_becomes_a_decoder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With cross-attention that adds nothing it is the GPT-2 that it was."""
    import torch
    import transformers

    torch.manual_seed(0)
    sizes = {"vocab_size": 19, "n_positions": 12, "n_embd": 8, "n_layer": 3, "n_head": 2}
    config = transformers.GPT2Config(**sizes, bos_token_id=18, eos_token_id=18)
    gpt2 = transformers.GPT2LMHeadModel(config).double().eval()
    gpt2.save_pretrained(tmp_path / "gpt2")
    encoder = AlbertModel(ENCODER)
    encoder.save_pretrained(tmp_path / "albert", encoder.initialize(jax.random.key(0)))
    with jax.enable_x64(True):
        model, params = AlbertForConditionalGeneration.from_encoder_decoder_pretrained(
            tmp_path / "albert", tmp_path / "gpt2", dtype=np.float64, pad_token_id=5
        )
        assert (model.decoder_config.bos_token_id, model.decoder_config.pad_token_id) == (18, 5)
        assert "decoder/layers/cross_attention/query/kernel" in caplog.text
        cross = params["decoder"]["layers"]["cross_attention"]
        assert 0.01 < cross["query"]["kernel"].std() < 0.03
        cross["dense"] = jax.tree.map(jnp.zeros_like, cross["dense"])
        targets = np.random.default_rng(0).integers(19, size=(2, 12))
        inputs = draw_inputs(2, 0)
        logits = model.apply({"params": params}, **inputs, decoder_input_ids=targets).logits
    with torch.no_grad():
        expected = gpt2(torch.tensor(targets)).logits
    np.testing.assert_allclose(logits, expected, rtol=1e-9, atol=1e-9)
