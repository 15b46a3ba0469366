"""The model's structure: counts to the unit, sharing, precision, program size."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from albert_jax import AlbertConfig, AlbertForPreTraining, AlbertModel
from albert_jax.config import FeedForwardKind, Norm, NormKind, ParameterSharing
from albert_jax.devices.flops import training_flops_per_row
from albert_jax.encoder import Execution, Remat

TINY = AlbertConfig(
    vocab_size=97,
    embedding_size=5,
    hidden_size=14,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=19,
    max_position_embeddings=13,
)
IDS = np.arange(2 * 7, dtype=np.int32).reshape(2, 7)


def shapes(model):
    return jax.eval_shape(
        lambda key: model.init(key, jnp.zeros((1, 4), jnp.int32))["params"], jax.random.key(0)
    )


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("name", "backbone", "pretraining"),
    [
        ("base_v1", 11_683_584, 11_813_810),
        ("large_v2", 17_683_968, 17_847_474),
        ("xlarge_v1", 58_724_864, 59_021_490),
        ("xlarge_v2", 58_724_864, 59_021_490),
        ("xxlarge_v1", 222_595_584, 223_158_450),
        ("tiny_zh", None, 4_142_594),
        ("small_zh", None, 4_813_706),
        ("base_zh", None, 10_669_322),
        ("large_zh", None, 16_702_986),
        ("xlarge_zh", None, 57_877_002),
        ("xxlarge_zh", None, 222_013_962),
    ],
)
def test_released_sizes_have_their_parameter_counts(name, backbone, pretraining):
    params = shapes(AlbertForPreTraining(AlbertConfig.from_name(name)))
    assert count(params) == pretraining
    assert backbone in (None, count(params["albert"]))


@pytest.mark.parametrize(
    ("sharing", "embedding_size", "expected"),
    [
        ("all", 64, 9_681_408),
        ("all", 256, 15_687_936),
        ("all", 768, 31_114_752),
        ("none", 64, 87_648_000),
        ("none", 128, 89_650_176),
        ("none", 256, 93_654_528),
        ("none", 768, 109_081_344),
        ("attention", 768, 83_078_400),
        ("attention", 128, 63_647_232),
        ("ffn", 768, 57_117_696),
        ("ffn", 128, 37_686_528),
    ],
)
def test_ablation_backbones_have_their_parameter_counts(sharing, embedding_size, expected):
    config = dataclasses.replace(
        AlbertConfig.from_name("base_v1"),
        parameter_sharing=ParameterSharing(sharing),
        embedding_size=embedding_size,
    )
    assert count(shapes(AlbertModel(config))) == expected


def test_other_backbones_have_their_parameter_counts():
    wide = AlbertConfig(
        hidden_size=6144, intermediate_size=24576, num_attention_heads=96, num_hidden_layers=3
    )
    assert count(shapes(AlbertModel(wide))) == 495_518_208
    assert count(shapes(AlbertForPreTraining(TINY))) == 2_537
    base = AlbertConfig.from_name("base_v1")
    for changes, difference in (
        ({"num_hidden_groups": 4}, 3 * 7_087_872),
        ({"feed_forward": FeedForwardKind.SWIGLU}, 2 * 2048 - 3072),  # biases; kernels are as many
        ({"norm_kind": NormKind.RMS}, -(128 + 2 * 768)),
        ({"norm": Norm.SANDWICH}, (2 + 1) * 2 * 768),
        ({"attention_window": 128}, 0),
        ({"depth_rank": 8}, 12 * 8 * (4 * (768 + 768) + 2 * (768 + 3072))),
        ({"dense_biases": False}, -(5 * 768 + 3072)),
        ({"depth_signal": "scale"}, 12 * 2 * 768),
        ({"depth_signal": "embedding"}, 12 * 768),
        ({"num_experts": 4}, 4 * (8 * 2 * (768 + 3072) + 768 + 1)),
    ):
        model = AlbertModel(dataclasses.replace(base, **changes))
        assert count(shapes(model)) == 11_683_584 + difference


@pytest.mark.parametrize("kind", FeedForwardKind)
def test_a_gate_costs_as_many_operations_as_it_replaces(kind):
    """Three matrices of two thirds of the width: 3 · 2 · 8 · 12 · (4 · 768² + 2 · 768 · 3072)."""
    config = dataclasses.replace(
        AlbertConfig.from_name("base_v1"), embedding_size=768, feed_forward=kind
    )
    dense = training_flops_per_row(config, length=8, predictions=0, pairs=0)
    attention = 3 * 12 * 4 * 8**2 * 768
    assert dense - attention == 3 * 2 * 8 * 12 * (4 * 768**2 + 2 * 768 * 3072)


def test_local_attention_counts_the_pairs_in_its_window():
    """In 8 of 12 layers, each position but the outer ones has a window of 2 · 2 + 1."""
    config = dataclasses.replace(
        AlbertConfig.from_name("base_v1"), attention_window=4, position_encoding="relative_local"
    )
    everywhere = dataclasses.replace(config, attention_window=0)
    counted = [
        training_flops_per_row(each, length=8, predictions=1) for each in (config, everywhere)
    ]
    pairs = sum(abs(i - j) <= 2 for i in range(8) for j in range(8))
    assert counted[1] - counted[0] == 3 * 8 * 2 * 4 * (8 * 8 - pairs) * 768


def test_all_experts_of_the_layers_that_have_them_are_computed():
    """Router 2 H E; each of E experts of rank r 2 r (H + F) for each of two kernels; thrice."""
    base = AlbertConfig.from_name("base_v1")
    experts = dataclasses.replace(base, num_experts=4, expert_rank=16, expert_layers="4, 8,12")
    plain, routed = (
        training_flops_per_row(config, length=8, predictions=0) for config in (base, experts)
    )
    assert routed - plain == 3 * 3 * 8 * (2 * 768 * 4 + 4 * 2 * 2 * 16 * (768 + 3072))


def test_initialization_is_a_normal_cut_at_two_deviations():
    config = dataclasses.replace(TINY, hidden_size=64, intermediate_size=256)
    params = AlbertForPreTraining(config).init(jax.random.key(0), IDS)["params"]
    layers = params["albert"]["encoder"]["layers"]
    kernel = np.asarray(layers["feed_forward"]["intermediate"]["kernel"])
    assert np.abs(kernel).max() <= 0.04
    assert kernel.std() == pytest.approx(0.02 * 0.8796, rel=0.02)
    flat = jax.tree_util.tree_leaves_with_path(params)
    for path, leaf in flat:
        if path[-1].key == "bias":
            assert not leaf.any()
        if path[-1].key == "scale":
            assert (leaf == 1).all()


def test_initialization_by_width():
    """0.02 becomes the authors' 0.014 and 0.01 at 2048 and 4096, and no more than 0.02 below."""

    def deviations(name, **changes):
        sizes = {"hidden_size": 2048, "intermediate_size": 512, "vocab_size": 3000}
        config = dataclasses.replace(TINY, **sizes, initialization=name, **changes)

        @jax.jit  # which leaves out the other kernels
        def kernels(key):
            params = AlbertModel(config).initialize(key)
            layer = params["encoder"]["layers"]["feed_forward"]
            kernels = {name: layer[name]["kernel"] for name in ("intermediate", "output")}
            return kernels | {"words": params["embeddings"]["word_embeddings"]["embedding"]}

        return {
            name: float(jnp.std(kernel)) / 0.8796
            for name, kernel in kernels(jax.random.key(0)).items()
        }

    near = functools.partial(pytest.approx, rel=0.02)
    thin = 0.02 / 2**0.5
    found = deviations("hidden_size")
    assert found == {"intermediate": near(thin), "output": near(thin), "words": near(thin)}
    wide = 0.02 * 2**0.5
    found = deviations("fan_in")
    assert found == {"intermediate": near(thin), "output": near(wide), "words": near(0.02)}


def test_copies_are_initialized_independently():
    config = dataclasses.replace(TINY, parameter_sharing=ParameterSharing.NONE, inner_group_num=2)
    params = AlbertModel(config).init(jax.random.key(0), IDS)["params"]
    kernel = params["encoder"]["layers"]["attention"]["query"]["kernel"].reshape(6, -1)
    assert len(np.unique(np.asarray(kernel[:, 0]))) == 6
    value = params["encoder"]["layers"]["attention"]["value"]["kernel"].reshape(6, -1)
    assert not np.array_equal(kernel, value)


@pytest.fixture(scope="module")
def shared_layer():
    """Parameters and last hidden state of a model whose layers are all the same one."""
    model = AlbertModel(TINY)
    params = model.init(jax.random.key(0), IDS)["params"]
    return params, model.apply({"params": params}, IDS).last_hidden_state


@pytest.mark.parametrize(
    ("changes", "begins"),
    [
        ({"depth_rank": 2}, ("attention_changes", "query", "down")),
        ({"depth_signal": "scale"}, ("depth_signal", "attention")),
        ({"depth_signal": "embedding"}, None),
        (
            {"num_experts": 3, "expert_layers": "1,3"},
            ("feed_forward", "intermediate_experts", "down"),
        ),
    ],
)
def test_a_model_with_changes_begins_as_the_one_without(changes, begins, shared_layer):
    """Bit for bit: the same kernels, to which zero is added."""
    params, expected = shared_layer
    model = AlbertModel(dataclasses.replace(TINY, **changes))
    changed = model.init(jax.random.key(0), IDS)["params"]
    layers = flatten_dict(changed["encoder"]["layers"])
    assert begins is None or np.any(layers[begins])
    for path, leaf in flatten_dict(params["encoder"]["layers"]).items():
        np.testing.assert_array_equal(layers[path], leaf)
    found = model.apply({"params": changed}, IDS).last_hidden_state
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("sharing", ["attention", "ffn", "none"])
def test_layers_with_equal_weights_are_one_shared_layer(sharing, shared_layer):
    params, expected = shared_layer
    config = dataclasses.replace(TINY, parameter_sharing=ParameterSharing(sharing))
    template = shapes(AlbertModel(config))
    copied = jax.tree.map(lambda x, like: jnp.broadcast_to(x, like.shape), params, template)
    np.testing.assert_allclose(
        AlbertModel(config).apply({"params": copied}, IDS).last_hidden_state,
        expected,
        rtol=1e-5,
        atol=1e-5,
    )


def test_norms_before_the_halves_are_those_of_a_plain_residual_stream():
    """Each half adds to the stream; one more norm, 2 H parameters, ends it."""
    config = dataclasses.replace(TINY, norm="pre")
    model = AlbertModel(config)
    params = model.init(jax.random.key(0), IDS)["params"]
    assert count(params) == count(shapes(AlbertModel(TINY))) + 2 * config.hidden_size
    # Without what the halves add, the stream is the layers' input, and its norm comes out.
    layers = params["encoder"]["layers"]
    for half, last in (("attention", "dense"), ("feed_forward", "output")):
        layers[half][last] = jax.tree.map(jnp.zeros_like, layers[half][last])
    still = model.apply({"params": params}, IDS, output_hidden_states=True)
    for state in still.hidden_states:
        np.testing.assert_array_equal(state, still.last_hidden_state)
    np.testing.assert_allclose(still.last_hidden_state.std(-1), 1, rtol=1e-4)
    # A constant from the last half is added once a layer: to a stream of its size, three times.
    layers["feed_forward"]["output"]["bias"] = jnp.arange(14.0)[None, None]
    params["encoder"]["embedding_hidden_mapping_in"] = jax.tree.map(
        jnp.zeros_like, params["encoder"]["embedding_hidden_mapping_in"]
    )
    params["encoder"]["layer_norm"]["bias"] += 1.0
    states = model.apply({"params": params}, IDS, output_hidden_states=True).hidden_states
    normed = (np.arange(14) - 6.5) / np.arange(14).std()
    np.testing.assert_allclose(states[0], 1)
    for state in states[1:]:
        np.testing.assert_allclose(state, np.broadcast_to(normed + 1, state.shape), rtol=1e-4)


@pytest.mark.parametrize("local", [{}, {"attention_window": 4, "num_hidden_layers": 3}])
def test_execution_changes_no_gradient(local):
    """The third of the layers with a window is behind a period of two."""
    config = dataclasses.replace(
        TINY, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3, global_every=2, **local
    )
    params = AlbertModel(config).init(jax.random.key(0), IDS)["params"]

    def gradients(execution):
        def loss(params):
            outputs = AlbertModel(config, execution=execution).apply(
                {"params": params}, IDS, deterministic=False, rngs={"dropout": jax.random.key(1)}
            )
            return jnp.square(outputs.pooler_output).sum()

        compiled = jax.jit(jax.grad(loss)).lower(params).compile()
        return compiled(params), compiled.cost_analysis()["flops"]

    plain, plain_flops = gradients(Execution())
    executions = Execution(Remat.FULL), Execution(Remat.DOTS), Execution(unroll=2)
    for execution in executions[:1] if local else executions:
        again, flops = gradients(execution)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), again, plain
        )
        assert flops > plain_flops, f"{execution} is the same program"


@pytest.mark.parametrize("window", [0, 2])
def test_layers_that_are_compiled_as_one_are_computed_again(window):
    """Then no loop between forward and backward pass keeps XLA from sharing their results."""
    config = dataclasses.replace(TINY, attention_window=window, global_every=1 + window // 2)

    def matmuls(remat):
        model = AlbertModel(config, execution=Execution(remat, unroll=config.num_hidden_layers))
        params = jax.eval_shape(model.initialize, jax.random.key(0))

        def loss(params):
            return model.apply({"params": params}, IDS).last_hidden_state.sum()

        return jax.jit(jax.grad(loss)).lower(params).compile().as_text().count(" dot(")

    none, dots, full = map(matmuls, Remat)
    assert none < dots < full


def test_remat_repeats_the_matmuls_that_it_names_and_no_others():
    def matmuls(remat):
        model = AlbertModel(TINY, execution=Execution(remat))
        params = jax.eval_shape(lambda: model.init(jax.random.key(0), IDS)["params"])

        def loss(params):
            return model.apply({"params": params}, IDS).pooler_output.sum()

        return str(jax.make_jaxpr(jax.grad(loss))(params)).count("dot_general[")

    attention, parameters = 2, 6  # matmuls of a layer
    assert matmuls(Remat.DOTS) == matmuls(Remat.NONE) + attention
    assert matmuls(Remat.FULL) == matmuls(Remat.NONE) + attention + parameters


def test_every_layer_has_its_own_dropout():
    config = dataclasses.replace(TINY, hidden_dropout_prob=0.5)
    model = AlbertModel(config)
    params = model.init(jax.random.key(0), IDS)["params"]

    def states(params, key):
        return model.apply(
            {"params": params},
            IDS,
            deterministic=False,
            output_hidden_states=True,
            rngs={"dropout": key},
        ).hidden_states

    # Both halves return their input, normed and dropped, when their kernels are zero and their
    # output biases are one: what changes from layer to layer is the dropout alone.
    layers = jax.tree.map(jnp.zeros_like, params["encoder"]["layers"])
    for half, last in (("attention", "dense"), ("feed_forward", "output")):
        layers[half][last]["bias"] += 10.0
        layers[half]["layer_norm"]["scale"] += 1.0
    params["encoder"]["layers"] = layers
    first = states(params, jax.random.key(1))
    patterns = {np.asarray(state > 0).tobytes() for state in first[1:]}
    assert len(patterns) == config.num_hidden_layers
    assert not np.array_equal(first[-1], states(params, jax.random.key(2))[-1])


def test_bfloat16_keeps_logits_and_parameters_in_float32():
    model = AlbertForPreTraining(TINY, dtype=jnp.bfloat16)
    variables = model.init(jax.random.key(0), IDS)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    outputs = model.apply(variables, IDS, output_hidden_states=True)
    assert outputs.prediction_logits.dtype == outputs.sop_logits.dtype == jnp.float32
    assert outputs.hidden_states[-1].dtype == jnp.bfloat16
    expected = AlbertForPreTraining(TINY).apply(variables, IDS)
    np.testing.assert_allclose(outputs.prediction_logits, expected.prediction_logits, atol=0.02)


def test_a_row_that_does_not_fit_is_rejected():
    model = AlbertModel(TINY)
    params = shapes(model)
    with pytest.raises(ValueError, match="length 14, max_position_embeddings is 13"):
        jax.eval_shape(lambda p: model.apply({"params": p}, np.zeros((1, 14), np.int32)), params)
    with pytest.raises(ValueError, match="not both"):
        jax.eval_shape(
            lambda p: model.apply(
                {"params": p}, IDS, np.ones_like(IDS), sequence_ids=IDS, position_ids=IDS
            ),
            params,
        )
    with pytest.raises(ValueError, match="that restart"):
        jax.eval_shape(lambda p: model.apply({"params": p}, IDS, sequence_ids=IDS), params)


@pytest.mark.parametrize(
    ("encoding", "parameters"),
    [
        # Two tables of 2 · 3 + 1 distances, as wide as a head, in place of 13 positions of width 5.
        ("relative_local", 2 * 7 * 7 - 13 * 5),
        ("rotary", -13 * 5),
        ("none", -13 * 5),
    ],
)
def test_position_encodings_without_a_table_read_rows_of_any_length(encoding, parameters):
    heads = {"hidden_size": 28, "num_attention_heads": 2, "max_relative_distance": 3}
    heads |= {"num_attention_heads": 4} if encoding == "relative_local" else {}
    absolute = dataclasses.replace(TINY, **heads)
    model = AlbertModel(dataclasses.replace(absolute, position_encoding=encoding))
    assert count(shapes(model)) == count(shapes(AlbertModel(absolute))) + parameters
    ids = np.arange(20, dtype=np.int32)[None]
    params = model.init(jax.random.key(0), ids)["params"]
    both = np.concatenate([ids, ids[:, ::-1]])
    whole, reverse = model.apply({"params": params}, both).last_hidden_state
    assert np.allclose(reverse[::-1], whole, atol=1e-5) is (encoding == "none")
    # Padding changes nothing: a longer row has the same hidden states at its tokens.
    longer = np.concatenate([ids, 7 + 0 * ids], axis=1)
    mask = np.repeat([[1, 0]], 20, axis=1).astype(np.int32)
    padded = model.apply({"params": params}, longer, mask).last_hidden_state
    np.testing.assert_allclose(padded[0, :20], whole, rtol=1e-4, atol=1e-5)


def test_rotary_needs_pairs():
    with pytest.raises(ValueError, match=r"hidden_size must be an even multiple of .* rotary"):
        dataclasses.replace(TINY, position_encoding="rotary")


def test_the_program_does_not_grow_with_depth():
    """48 layers need as many operations as 12, before and after compilation, with gradients."""

    def lower(layers):
        model = AlbertForPreTraining(dataclasses.replace(TINY, num_hidden_layers=layers))

        def loss(params):
            return model.apply({"params": params}, IDS).prediction_logits.sum()

        return jax.jit(jax.grad(loss)).lower(shapes(model))

    lowered = [lower(layers) for layers in (12, 48)]
    operations = [each.as_text().count(" = ") for each in lowered]
    assert operations[0] == operations[1] > 100
    instructions = [each.compile().as_text().count(" = ") for each in lowered]
    assert instructions[0] == instructions[1] > 100
