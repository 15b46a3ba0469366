"""The decoder: its cache, what depends on what, initialization, sharing, refusals."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_decoders import (
    DECODER,
    SCALED,
    TIED,
    draw_params,
    draw_sources,
    draw_targets,
    make_decoder,
)
from tiny_models import TINY

from albert_jax import AlbertForConditionalGeneration, Gpt2Config
from albert_jax.attention.reference import dot_product_attention
from albert_jax.config import AlbertConfig
from albert_jax.decoder.config import DecoderSizes
from albert_jax.encoder import AlbertEncoder, Execution, Remat
from albert_jax.layers import layer_norm
from albert_jax.settings import FieldError
from albert_jax.training.optimizer import adaptation_mask

KINDS: dict[str, dict[str, Any]] = {
    "none": {},
    "all": {"parameter_sharing": "all", **SCALED},
    "attention": {"parameter_sharing": "attention", "n_layer": 3},
    "ffn": {"parameter_sharing": "ffn"},
    "tied": TIED,
}


@pytest.mark.parametrize(
    "kind",
    [
        kind if kind in ("all", "tied") else pytest.param(kind, marks=pytest.mark.slow)
        for kind in KINDS
    ],
)
def test_a_cache_changes_nothing(kind: str) -> None:
    """Each source has two rows; halfway, some take over the text of their neighbors."""
    model = make_decoder(**KINDS[kind])
    params, sources = draw_params(model), draw_sources(2)
    length, middle = 9, 6
    first, second = draw_targets(4, length), draw_targets(4, length, seed=2)
    parents = np.array([1, 1, 2, 2])
    expected_ids = np.concatenate([first[parents][:, :middle], second[:, middle:]], axis=1)

    @jax.jit
    def without_cache(params: Any) -> Any:
        rows = {name: np.repeat(array, 2, axis=0) for name, array in sources.items()}
        variables = {"params": params}
        both = np.concatenate([first, expected_ids])
        rows = {name: np.concatenate([row, row]) for name, row in rows.items()}
        return model.apply(variables, **rows, decoder_input_ids=both).logits

    @jax.jit
    def with_cache(params: Any) -> Any:
        variables, logits = {"params": params}, []
        cache: Any = model.apply(variables, **sources, length=length, beams=2, method="encode")
        cuts = [0, 3, 4, middle, middle + 1, length]
        for start, stop in itertools.pairwise(cuts):
            ids = first if stop <= middle else second
            piece, cache = model.apply(variables, ids[:, start:stop], cache, method="decode")
            logits.append(piece)
            if stop == middle:
                cache = cache.reorder(jnp.asarray(parents.reshape(2, 2) % 2))
        return jnp.concatenate(logits, axis=1)

    expected = np.asarray(without_cache(params))
    actual = with_cache(params)
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(actual[:, :middle], expected[:4, :middle], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(actual[:, middle:], expected[4:, middle:], rtol=1e-5, atol=1e-5)


def test_a_token_depends_on_those_before_it_and_on_the_real_tokens_of_the_source() -> None:
    model = make_decoder()
    params = draw_params(model)
    inputs = {"input_ids": np.arange(1, 6)[None], "attention_mask": np.array([[1, 1, 1, 0, 0]])}
    target = draw_targets(1, 4)
    tables = {
        "albert": params["albert"]["embeddings"]["position_embeddings"],
        "decoder": params["decoder"]["position_embeddings"],
    }

    @jax.jit
    @jax.jacrev
    def influences(tables: Any) -> Any:
        encoder = params["albert"]
        embeddings = {**encoder["embeddings"], "position_embeddings": tables["albert"]}
        changed = {
            **params,
            "albert": {**encoder, "embeddings": embeddings},
            "decoder": {**params["decoder"], "position_embeddings": tables["decoder"]},
        }
        logits = model.apply({"params": changed}, **inputs, decoder_input_ids=target).logits
        return jnp.square(logits[0]).sum(-1)

    found = jax.tree.map(lambda x: np.abs(x).max(-1) > 0, influences(tables))
    of_target = found["decoder"]["embedding"][:, :5]
    np.testing.assert_array_equal(of_target, np.tril(np.ones((4, 5), bool)))
    of_source = found["albert"]["embedding"][:, :5]
    np.testing.assert_array_equal(of_source, [[True, True, True, False, False]] * 4)


def test_initial_weights_are_those_of_gpt2() -> None:
    """Normal, 0.02; residual projections 0.02 over the root of the 2 x 8 residual halves."""
    config = Gpt2Config(
        vocab_size=300,
        n_positions=60,
        n_embd=48,
        n_layer=8,
        n_head=2,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = AlbertForConditionalGeneration(TINY, config)
    params = jax.jit(model.initialize)(jax.random.key(0))["decoder"]
    checked = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith("bias") or "scale" in name:
            assert (leaf == (1 if "scale" in name else 0)).all(), name
            continue
        residual = name.endswith(("attention/dense/kernel", "output/kernel"))
        expected = 0.02 / 4 if residual else 0.02
        error = expected / np.sqrt(2 * leaf.size)
        assert abs(float(leaf.std()) - expected) < 4 * error, name
        assert abs(leaf).max() > 3 * expected, name  # not truncated at two
        if "layers" in name:
            assert leaf.shape[:2] == (8, 1)
            assert abs(np.corrcoef(leaf[0].ravel(), leaf[1].ravel())[0, 1]) < 0.1, name
        checked += 1
    assert checked == 2 + 4 + 4 + 2


def test_what_is_stored_once_is_what_is_shared() -> None:
    def copies(**changes: Any) -> dict[str, int]:
        shapes = make_decoder(**changes).parameter_shapes().items()
        layers = [
            (name.split("/")[2], shape)
            for name, shape in shapes
            if name.startswith("decoder/layers")
        ]
        assert all(shape[1] == 1 for _, shape in layers)
        return {half: shape[0] for half, shape in layers}

    both, three = ("attention", "cross_attention"), {"n_layer": 3}
    assert copies(**three) == {**dict.fromkeys(both, 3), "feed_forward": 3}
    assert copies(**three, parameter_sharing="all") == {**dict.fromkeys(both, 1), "feed_forward": 1}
    assert copies(**three, parameter_sharing="attention")["feed_forward"] == 3
    assert copies(**three, parameter_sharing="ffn") == {**dict.fromkeys(both, 3), "feed_forward": 1}
    assert copies(**TIED) == {"cross_attention": 2}


def test_a_tied_decoder_without_cross_attention_is_the_encoder() -> None:
    """On one token causal attention is attention."""
    model = make_decoder(**TIED)
    params = draw_params(model)
    params["decoder"]["layers"]["cross_attention"]["dense"] = jax.tree.map(
        np.zeros_like, params["decoder"]["layers"]["cross_attention"]["dense"]
    )
    target = np.array([[5]])
    actual = model.apply({"params": params}, target, decoder_input_ids=target).logits
    own = params["decoder"]
    embedded = (
        own["word_embeddings"]["embedding"][target] + own["position_embeddings"]["embedding"][:1]
    )
    encoder = AlbertEncoder(dataclasses.replace(TINY, embedding_size=4))
    layers = {"params": {"layers": params["albert"]["encoder"]["layers"]}}
    hidden, _ = encoder.apply(
        layers,
        jnp.asarray(embedded),
        dot_product_attention,
        deterministic=True,
        output_hidden_states=False,
    )
    norm = own["layer_norm"]
    hidden = layer_norm(hidden, norm["scale"], norm["bias"], 1e-5, jnp.float32)
    expected = hidden @ own["word_embeddings"]["embedding"].T
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_dropout_and_rematerialization() -> None:
    """Dropout follows its key, and the backward pass repeats the same draws."""
    model = make_decoder()
    params, sources, targets = draw_params(model), draw_sources(2), draw_targets(2, 5)

    def loss(params: Any, model: Any, key: Any) -> Any:
        outputs = model.apply(
            {"params": params},
            **sources,
            decoder_input_ids=targets,
            deterministic=False,
            rngs={"dropout": key},
        )
        return jnp.square(outputs.logits).mean()

    gradients = {}
    for remat in (Remat.NONE, Remat.FULL):
        other = model.clone(execution=Execution(remat=remat))
        gradients[remat] = jax.jit(jax.value_and_grad(lambda p, k, other=other: loss(p, other, k)))
    value, kept = gradients[Remat.NONE](params, jax.random.key(0))
    again, computed_again = gradients[Remat.FULL](params, jax.random.key(0))
    np.testing.assert_allclose(value, again, rtol=1e-6)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), kept, computed_again
    )
    assert abs(gradients[Remat.NONE](params, jax.random.key(1))[0] - value) > 1e-3


def test_lamb_adapts_the_kernels_and_tables_alone() -> None:
    mask = adaptation_mask(jax.eval_shape(make_decoder().initialize, jax.random.key(0)))
    for path, adapted in jax.tree_util.tree_leaves_with_path(mask["decoder"]):
        assert adapted == (path[-1].key in ("kernel", "embedding")), path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pad_token_id": 1}, "pad_token_id must be another token than bos_token_id"),
        ({"eos_token_id": 13}, r"eos_token_id must be less than vocab_size \(13\), got 13"),
        ({"n_head": 4}, r"n_embd must be a multiple of n_head \(4\), got 6"),
        (
            {**TIED, "n_embd": 6},
            r"n_embd must be the encoder's hidden_size \(4\) with tie_to_encoder",
        ),
        ({**TIED, "n_inner": 6}, r"n_inner must be the encoder's intermediate_size \(5\)"),
        ({**TIED, "n_layer": 3}, r"n_layer must be the encoder's num_hidden_layers \(2\)"),
        ({**TIED, "n_head": 1}, r"n_head must be the encoder's num_attention_heads \(2\)"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FieldError, match=message):
        make_decoder(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"position_encoding": "rotary"},
        {"depth_rank": 2},
        {"attention_window": 2},
        {"num_experts": 2},
    ],
)
def test_encoders_whose_layers_cannot_decode_are_not_tied(changes: dict[str, Any]) -> None:
    encoder = AlbertConfig.from_dict(TINY.to_dict() | changes)
    with pytest.raises(FieldError, match="tie_to_encoder must be false unless the encoder has abs"):
        AlbertForConditionalGeneration(encoder, dataclasses.replace(DECODER, **TIED))


def test_a_tied_decoder_is_as_wide_inside_as_its_encoder() -> None:
    tokens = {"vocab_size": 13, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    tied, untied = (
        DecoderSizes(tie_to_encoder=tie).complete(TINY, longest=8, **tokens)
        for tie in (True, False)
    )
    assert TINY.intermediate_size != 4 * TINY.hidden_size
    assert tied.inner_size == TINY.intermediate_size
    assert untied.inner_size == 4 * TINY.hidden_size


def test_a_target_longer_than_the_position_table_is_refused() -> None:
    model = make_decoder(n_positions=4)
    params = draw_params(model)
    with pytest.raises(
        FieldError, match=r"length of targets must be at most n_positions \(4\), got 5"
    ):
        model.apply({"params": params}, **draw_sources(1), decoder_input_ids=draw_targets(1, 5))
