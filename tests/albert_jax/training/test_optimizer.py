"""The optimizers and the schedule against worked numbers, optax and themselves, unstacked."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import optax.contrib
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from albert_jax import AlbertConfig, AlbertForPreTraining
from albert_jax.config import ParameterSharing
from albert_jax.training.config import OptimizerConfig, OptimizerName, ScheduleName
from albert_jax.training.optimizer import (
    adaptation_mask,
    evaluated_parameters,
    gauss_newton_diagonal,
    make_optimizer,
)
from albert_jax.training.schedule import make_schedule
from albert_jax.training.trust_ratio import scale_by_trust_ratio, trust_ratios

# Constant rate to eight digits, no clipping: what the worked numbers assume.
CONSTANT: dict[str, Any] = {
    "learning_rate": 0.1,
    "num_warmup_steps": 0,
    "num_train_steps": 10**9,
    "max_grad_norm": None,
}
WARMED_UP: dict[str, Any] = {"learning_rate": 0.1, "num_train_steps": 9, "num_warmup_steps": 3}
SCHEDULE_FREE: dict[str, Any] = {
    "name": OptimizerName.SCHEDULE_FREE,
    "schedule": ScheduleName.WARMUP_STABLE_DECAY,
    "decay_share": 0.0,
}
GRADIENTS = ([0.1, -0.2], [0.05, 0.3], [-0.4, 0.01])


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def unchecked():
    """Pass values of the wrong type to the configuration, which checks them itself."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def run(config: OptimizerConfig, params: Any, gradients: Any, batch: int = 1) -> list[Any]:
    """The parameters and the optimizer's state after each step."""
    optimizer = optax.with_extra_args_support(make_optimizer(config, global_batch_size=batch))

    @jax.jit
    def step(params: Any, state: Any, gradient: Any) -> Any:
        updates, state = optimizer.update(gradient, state, params, **sampled(gradient))
        return optax.apply_updates(params, updates), state

    state, history = optimizer.init(params), []
    for gradient in gradients:
        params, state = step(params, state, gradient)
        history.append((params, state))
    return history


def sampled(gradient: Any) -> Any:
    """Return what Sophia's update takes beside the gradient: here twice that of other labels."""
    return {"sampled_gradients": lambda: jax.tree.map(lambda g: 2 * g, gradient)}


def tiny_shapes(sharing: ParameterSharing) -> Any:
    """The model's own tree of parameters: 2 groups of 2 inner layers, 3 layers."""
    config = AlbertConfig(
        vocab_size=11,
        embedding_size=4,
        hidden_size=6,
        num_hidden_layers=3,
        num_hidden_groups=2,
        inner_group_num=2,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=5,
        parameter_sharing=sharing,
    )
    ids = jnp.zeros((1, 3), jnp.int32)
    shapes = jax.eval_shape(AlbertForPreTraining(config).init, jax.random.key(0), ids)
    return shapes["params"]


def random_like(tree: Any, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), tree)


def unstack(params: Any) -> dict[tuple[str, ...], Any]:
    """Every [copy, inner] slice below `layers` as a leaf of its own, in a branch of its own."""
    leaves: dict[tuple[str, ...], Any] = {}
    for path, leaf in flatten_dict(params).items():
        if "layers" not in path:
            leaves[path] = leaf
            continue
        at = path.index("layers")
        for copy, inner in np.ndindex(leaf.shape[:2]):
            leaves[(*path[:at], f"layer_{copy}_{inner}", *path[at + 1 :])] = leaf[copy, inner]
    return leaves


def make_config(name: OptimizerName, **settings: Any) -> OptimizerConfig:
    """Return a configuration with the schedule that the optimizer needs."""
    needed = SCHEDULE_FREE if name is OptimizerName.SCHEDULE_FREE else {"name": name}
    return OptimizerConfig(**settings | needed)


# The weights after each of the three gradients above, from [3, 4] on.
WORKED = {
    OptimizerName.LAMB: [
        [2.64257601, 4.34963995],
        [2.15183824, 4.21472442],
        [2.57138931, 3.99581805],
    ],
    OptimizerName.ADAMW: [
        [2.6808722, 4.31217777],
        [2.2821651, 4.20261167],
        [2.48850069, 4.09489744],
    ],
    OptimizerName.ADEMAMIX: [
        [2.896501, 4.0964995],
        [2.79943954, 4.06743642],
        [2.83930771, 4.04219242],
    ],
    OptimizerName.SCHEDULE_FREE: [
        [2.897001, 4.0959995],
        [2.86061781, 4.02903485],
        [2.9162462, 4.00723907],
    ],
    # So far from an optimum all entries are at their bound.
    OptimizerName.SOPHIA: [[2.897, 4.096], [2.794103, 3.991904], [2.8913089, 3.8879121]],
}
# A matrix outside `layers` takes AdamW's steps.
WORKED[OptimizerName.MUON] = WORKED[OptimizerName.ADAMW]
_ADAM_EXCLUDED = [[2.6838722, 4.31617777], [2.28784598, 4.21092385], [2.49646373, 4.10741222]]
WORKED_EXCLUDED = dict.fromkeys(OptimizerName, _ADAM_EXCLUDED) | {
    OptimizerName.ADEMAMIX: [
        [2.899501, 4.1004995],
        [2.80533604, 4.07553292],
        [2.84800365, 4.05435636],
    ],
    OptimizerName.SCHEDULE_FREE: [
        [2.900001, 4.0999995],
        [2.86521116, 4.03528765],
        [2.92241835, 4.01571788],
    ],
    OptimizerName.SOPHIA: [[2.9, 4.1], [2.8, 4.0], [2.9, 3.9]],
}


@pytest.mark.parametrize("name", OptimizerName)
def test_three_steps_give_the_worked_weights_and_ratios(x64, name):
    leaves = {"kernel": 0, "bias": 0, "layer_norm": {"scale": 0}}
    params = jax.tree.map(lambda _: jnp.array([3.0, 4.0]), leaves)
    gradients = [jax.tree.map(lambda _, g=g: jnp.array(g), leaves) for g in GRADIENTS]
    config = make_config(name, **CONSTANT)
    ratios = [1.12000269, 1.23094099, 2.03205973]
    for step, (weights, state) in enumerate(run(config, params, gradients)):
        np.testing.assert_allclose(weights["kernel"], WORKED[name][step], rtol=0, atol=1e-8)
        for excluded in (weights["bias"], weights["layer_norm"]["scale"]):
            np.testing.assert_allclose(excluded, WORKED_EXCLUDED[name][step], rtol=0, atol=1e-8)
        if name is OptimizerName.LAMB:
            np.testing.assert_allclose(trust_ratios(state)["kernel"], ratios[step], atol=1e-8)
        else:
            assert trust_ratios(state) == {}


def test_float32_gives_the_worked_weights_and_keeps_its_dtype():
    history = run(
        OptimizerConfig(**CONSTANT),
        {"kernel": jnp.array([3.0, 4.0])},
        [{"kernel": jnp.array(g)} for g in GRADIENTS],
    )
    params, state = history[-1]
    np.testing.assert_allclose(params["kernel"], WORKED[OptimizerName.LAMB][-1], rtol=1e-6)
    floats = [x.dtype for x in jax.tree.leaves((params, state)) if x.dtype != jnp.int32]
    assert set(floats) == {jnp.dtype("float32")}


def test_bfloat16_gradients_are_squared_in_the_dtype_of_the_parameters():
    params, low = (
        {"kernel": jnp.ones(8)},
        {"kernel": jnp.linspace(0.1, 1, 8, dtype=jnp.bfloat16)},
    )
    full = jax.tree.map(lambda g: g.astype(jnp.float32), low)
    config = OptimizerConfig(**CONSTANT)
    expected, found = (run(config, params, [grads])[-1] for grads in (full, low))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("name", OptimizerName)
def test_equals_optax_where_optax_is_the_same_algorithm(x64, name):
    """Bias-corrected, unclipped, nothing stacked and (for lamb) nothing excluded."""
    config = make_config(name, bias_correction=True, max_grad_norm=None, **WARMED_UP)
    schedule = make_schedule(config, global_batch_size=1)
    arguments = {"b1": 0.9, "b2": 0.999, "eps": 1e-6, "weight_decay": 0.01}
    params = random_like({"a": {"kernel": jnp.zeros((3, 4))}, "b": jnp.zeros(5)}, seed=0)
    if name is OptimizerName.LAMB:
        theirs: Any = optax.lamb(schedule, **arguments)
    else:
        params["bias"] = params["b"]
        arguments["mask"] = adaptation_mask(params)
        if name is OptimizerName.ADEMAMIX:
            slow = {"b3": 0.999, "alpha": 5.0}
            theirs = optax.contrib.ademamix(schedule, **arguments, **slow)
        elif name is OptimizerName.SCHEDULE_FREE:
            theirs = optax.adamw(schedule, **arguments | {"b1": 0})
            theirs = optax.contrib.schedule_free(theirs, schedule)
        elif name is OptimizerName.SOPHIA:
            own = {"b2": 0.99, "eps": 1e-12, "gamma": 0.05, "update_interval": 10}
            decay = {"weight_decay": 0.01, "weight_decay_mask": arguments["mask"]}
            theirs = optax.contrib.sophia(
                schedule, 0.9, **own, **decay, hessian_diagonal_fn=gauss_newton_diagonal()
            )
        else:
            theirs = optax.adamw(schedule, **arguments)
    gradients = [random_like(params, seed) for seed in range(1, 9)]
    theirs = optax.with_extra_args_support(theirs)
    expected, state = params, theirs.init(params)
    for (ours, _), gradient in zip(run(config, params, gradients), gradients, strict=True):
        updates, state = theirs.update(gradient, state, expected, **sampled(gradient))
        expected = optax.apply_updates(expected, updates)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12), ours, expected)


def test_the_ratio_is_1_where_a_norm_is_0():
    """A weight or an update of norm 0 has ratio 1; no ratio is bounded."""
    scaling = scale_by_trust_ratio()
    params = {"zero": jnp.zeros(2), "still": jnp.array([3.0, 4.0]), "far": jnp.array([3e4, 4e4])}
    updates = {"zero": jnp.ones(2), "still": jnp.zeros(2), "far": jnp.array([0.0, 1e-3])}
    updates, state = scaling.update(updates, scaling.init(params), params)
    assert jax.tree.map(float, state.ratios) == {"zero": 1, "still": 1, "far": pytest.approx(5e7)}
    np.testing.assert_array_equal(updates["zero"], [1, 1])
    np.testing.assert_array_equal(updates["still"], [0, 0])


@pytest.mark.parametrize("sharing", ParameterSharing)
def test_exclusion_goes_by_name_on_the_models_tree(sharing):
    params = jax.tree.map(lambda x: jnp.ones(x.shape), tiny_shapes(sharing))
    mask = flatten_dict(adaptation_mask(params), sep="/")
    kept = {name for name, is_adapted in mask.items() if is_adapted}
    attention = {f"attention/{name}/kernel" for name in ("query", "key", "value", "dense")}
    feed_forward = {f"feed_forward/{name}/kernel" for name in ("intermediate", "output")}
    tables = {f"{name}_embeddings/embedding" for name in ("word", "token_type", "position")}
    assert kept == (
        {f"albert/embeddings/{name}" for name in tables}
        | {f"albert/encoder/layers/{name}" for name in attention | feed_forward}
        | {"albert/encoder/embedding_hidden_mapping_in/kernel", "albert/pooler/kernel"}
        | {"predictions/dense/kernel", "sop_classifier/kernel"}
    )
    shapes = {name: ratio.shape for name, ratio in trust_ratios(make_lamb().init(params)).items()}
    assert shapes.keys() == kept
    copies = {
        ParameterSharing.ALL: {"attention": 2, "feed_forward": 2},
        ParameterSharing.ATTENTION: {"attention": 2, "feed_forward": 3},
        ParameterSharing.FFN: {"attention": 3, "feed_forward": 2},
        ParameterSharing.NONE: {"attention": 3, "feed_forward": 3},
    }[sharing]
    for name, shape in shapes.items():
        assert shape == ((copies[name.split("/")[3]], 2) if "/layers/" in name else ())


def test_what_layers_have_of_their_own_and_experts():
    """Scales and second norms take plain steps; an expert is adapted as a tensor of its own."""
    config = AlbertConfig(
        vocab_size=9,
        embedding_size=2,
        hidden_size=4,
        num_hidden_layers=2,
        num_attention_heads=1,
        intermediate_size=6,
        num_experts=3,
        depth_signal="scale",
        norm="sandwich",
        dense_biases=False,
    )
    shapes = jax.eval_shape(AlbertForPreTraining(config).initialize, jax.random.key(0))
    params = jax.tree.map(lambda x: jnp.ones(x.shape), shapes)
    ratios = trust_ratios(make_lamb().init(params))
    layers = "albert/encoder/layers/"
    own = {
        name.removeprefix(layers): ratio.shape for name, ratio in ratios.items() if layers in name
    }
    kernels = {f"attention/{name}" for name in ("query", "key", "value", "dense")}
    kernels |= {f"feed_forward/{name}" for name in ("intermediate", "output", "router")}
    experts = {f"feed_forward/{name}_experts" for name in ("intermediate", "output")}
    assert own == {f"{name}/kernel": (1, 1) for name in kernels} | {
        f"{name}/{factor}": (1, 1, 3) for name in experts for factor in ("down", "up")
    }


def make_lamb() -> optax.GradientTransformation:
    return make_optimizer(OptimizerConfig(**WARMED_UP), global_batch_size=1)


@pytest.mark.parametrize("sharing", ParameterSharing)
def test_stacked_equals_unstacked(x64, sharing):
    """Several clipped LAMB steps; each slice has the ratio it has as a tensor of its own."""
    # One tensor of each kind: the others would only be compiled.
    kinds = ("query/kernel", "query/bias", "intermediate/kernel", "norm/scale", "pooler/kernel")
    shapes = flatten_dict(tiny_shapes(sharing), sep="/")
    shapes = unflatten_dict({n: x for n, x in shapes.items() if n.endswith(kinds)}, sep="/")
    params, *gradients = (random_like(shapes, seed) for seed in range(5))
    config = OptimizerConfig(**WARMED_UP)
    stacked = run(config, params, gradients)
    unstacked = run(
        config, unflatten_dict(unstack(params)), [unflatten_dict(unstack(g)) for g in gradients]
    )
    for (ours, our_state), (theirs, their_state) in zip(stacked, unstacked, strict=True):
        theirs = flatten_dict(theirs)
        for path, leaf in unstack(ours).items():
            np.testing.assert_allclose(
                leaf, theirs[path], rtol=1e-11, atol=1e-14, err_msg=str(path)
            )
        ratios = unflatten_dict(trust_ratios(our_state), sep="/")
        expected = trust_ratios(their_state)
        found = {"/".join(path): ratio for path, ratio in unstack(ratios).items()}
        assert found.keys() == expected.keys()
        for name, ratio in found.items():
            np.testing.assert_allclose(ratio, expected[name], rtol=1e-11, atol=1e-14, err_msg=name)
    inside = [r for n, r in found.items() if "layer_" in n and "kernel" in n]
    assert len({round(float(ratio), 9) for ratio in inside}) == len(inside)


def orthogonalized(matrix: np.ndarray) -> np.ndarray:
    """Five steps of the quintic iteration of Jordan et al. on one matrix."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (np.linalg.norm(wide) + 1e-8)
    for _ in range(5):
        gram = wide @ wide.T
        wide = 3.4445 * wide + (-4.7750 * gram + 2.0315 * gram @ gram) @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


def test_muon_orthogonalizes_each_layers_matrices_by_themselves(x64):
    """Three steps against Nesterov's momentum in NumPy; biases take AdamW's steps."""
    names = {"query": {"kernel": jnp.zeros((3, 2, 6, 4)), "bias": jnp.zeros((3, 2, 4))}}
    params, *gradients = (random_like({"layers": names}, seed) for seed in range(4))
    config = OptimizerConfig(name=OptimizerName.MUON, **CONSTANT)
    adamw = OptimizerConfig(name=OptimizerName.ADAMW, **CONSTANT)
    found, plain = (run(one, params, gradients) for one in (config, adamw))
    weights = np.array(params["layers"]["query"]["kernel"])
    momentum = np.zeros_like(weights)
    for step, gradient in enumerate(gradients, 1):
        of_step = np.array(gradient["layers"]["query"]["kernel"])
        momentum = 0.95 * momentum + 0.05 * of_step
        ahead = 0.95 * momentum / (1 - 0.95 ** (step + 1)) + 0.05 * of_step / (1 - 0.95**step)
        for at in np.ndindex(3, 2):
            update = 0.2 * 6**0.5 * orthogonalized(ahead[at]) + 0.01 * weights[at]
            weights[at] -= 0.1 * update
        ours, theirs = (history[step - 1][0]["layers"]["query"] for history in (found, plain))
        np.testing.assert_allclose(ours["kernel"], weights, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(ours["bias"], theirs["bias"])


def test_schedule_free_evaluates_the_weighted_mean_of_its_ends(x64):
    """Warm-up and five steps of a stack and a bias against the recurrence in NumPy.

    Optax weights the n-th end by the rate of the step after it, which differs in warm-up alone.
    """
    names = {"query": {"kernel": jnp.zeros((2, 1, 3, 4)), "bias": jnp.zeros((2, 1, 4))}}
    params, *gradients = (random_like({"layers": names}, seed) for seed in range(9))
    config = OptimizerConfig(**WARMED_UP, **SCHEDULE_FREE, beta_1=0.8, max_grad_norm=None)
    history = run(config, params, gradients)
    for name, decay in (("kernel", 0.01), ("bias", 0)):
        x = y = z = np.array(params["layers"]["query"][name])
        squares, total = np.zeros_like(z), 0.0
        for step, (gradient, (ours, state)) in enumerate(
            zip(gradients, history, strict=True), start=1
        ):
            of_step = np.array(gradient["layers"]["query"][name])
            squares = 0.999 * squares + 0.001 * of_step**2
            root = np.sqrt(squares / (1 - 0.999**step)) + 1e-6
            z = z - 0.1 * min(1, (step - 1) / 3) * (of_step / root + decay * y)
            weight = (0.1 * min(1, step / 3)) ** 2
            total += weight
            x = x + weight / total * (z - x)
            y = 0.8 * x + 0.2 * z
            np.testing.assert_allclose(ours["layers"]["query"][name], y, rtol=0, atol=1e-9)
            found = evaluated_parameters(ours, state)["layers"]["query"][name]
            np.testing.assert_allclose(found, x, rtol=0, atol=1e-9)


def test_sophia_estimates_curvature_every_few_steps_and_bounds_each_entry(x64):
    """Seven steps against the paper's algorithm in NumPy; an estimate is used from the next on."""
    params, *gradients = (
        random_like({"layers": {"kernel": jnp.zeros((2, 1, 3, 4))}}, seed) for seed in range(8)
    )
    own: dict[str, Any] = {"curvature_every": 3, "curvature_beta": 0.7, "curvature_scale": 0.9}
    config = OptimizerConfig(name=OptimizerName.SOPHIA, **own, **CONSTANT)
    weights = np.array(params["layers"]["kernel"])
    mean, curvature, bounded = np.zeros_like(weights), np.zeros_like(weights), []
    for step, (gradient, (ours, _)) in enumerate(
        zip(gradients, run(config, params, gradients), strict=True)
    ):
        of_step = np.array(gradient["layers"]["kernel"])
        mean = 0.9 * mean + 0.1 * of_step
        ratio = mean / (1 - 0.9 ** (step + 1)) / np.maximum(0.9 * curvature, 1e-12)
        bounded.append(np.mean(abs(ratio) > 1))
        weights = weights - 0.1 * (np.clip(ratio, -1, 1) + 0.01 * weights)
        if step % 3 == 0:
            curvature = 0.7 * curvature + 0.3 * (2 * of_step) ** 2
        np.testing.assert_allclose(ours["layers"]["kernel"], weights, rtol=1e-7)  # beta in float32
    assert bounded[0] == 1
    assert 0 < bounded[-1] < 1


def test_the_mean_of_parameters_follows_them_and_changes_nothing(x64):
    """Against the sum of all weights so far, each with its factor."""
    params, *gradients = (random_like({"kernel": jnp.zeros((2, 3))}, seed) for seed in range(6))
    plain = run(OptimizerConfig(**CONSTANT), params, gradients)
    averaged = run(OptimizerConfig(average_decay=0.3, **CONSTANT), params, gradients)
    mean = np.array(params["kernel"])
    for number, ((weights, _), (same, state)) in enumerate(
        zip(plain, averaged, strict=True), start=1
    ):
        np.testing.assert_array_equal(same["kernel"], weights["kernel"])
        decay = min(0.3, (1 + number) / (10 + number))  # 2/11, 3/12, then 0.3
        mean = decay * mean + (1 - decay) * np.array(weights["kernel"])
        found = evaluated_parameters(same, state)["kernel"]
        np.testing.assert_allclose(found, mean, rtol=1e-7)  # of a decay in float32
    assert evaluated_parameters(weights, None) is weights


@pytest.mark.parametrize("name", OptimizerName)
def test_state_can_be_donated(name):
    """No buffer is in the state twice, since it could not be donated then."""
    average = None if name is OptimizerName.SCHEDULE_FREE else 0.9
    optimizer = make_optimizer(make_config(name, average_decay=average), global_batch_size=1)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    update = functools.partial(optax.with_extra_args_support(optimizer).update, **sampled(params))
    jax.jit(update, donate_argnums=1)(params, optimizer.init(params), params)


def test_a_stack_without_its_axes_is_rejected():
    params = {"layers": {"query": {"kernel": jnp.ones((3, 3))}}}
    with pytest.raises(ValueError, match=r"layers/query/kernel .* \[copies, inner\].*\(3, 3\)"):
        make_lamb().init(params)


@pytest.mark.parametrize(
    ("name", "moments"), [(OptimizerName.LAMB, ("mu", "nu")), (OptimizerName.SCHEDULE_FREE, ("z",))]
)
def test_sharded_parameters_take_the_same_steps(x64, name, moments):
    """Norms are those of whole tensors, over eight devices too."""
    params = {"kernel": jnp.ones((8, 4)), "layers": {"kernel": jnp.ones((2, 1, 8, 3))}}
    params = random_like(params, seed=0)
    gradients = [random_like(params, seed) for seed in range(1, 4)]
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = {"kernel": P("fsdp"), "layers": {"kernel": P(None, None, "fsdp")}}
    placed = jax.device_put(params, jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs))
    config = make_config(name, **WARMED_UP)
    whole, _ = run(config, params, gradients)[-1]
    sharded, state = run(config, placed, gradients)[-1]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12), sharded, whole)
    moments = [optax.tree.get(state, moment) for moment in moments]
    for tree in (sharded, evaluated_parameters(sharded, state), *moments):
        shardings = jax.tree.map(lambda x: x.sharding.spec, tree)
        assert shardings == specs


def test_clipping_sees_all_gradients_together(x64):
    """Gradients of norm 13 act like the same divided by 13; shorter ones act as they are."""
    params = {"a": jnp.array([1.0, 2.0]), "bias": jnp.array([3.0])}
    long = {"a": jnp.array([3.0, 4.0]), "bias": jnp.array([12.0])}
    short = jax.tree.map(lambda g: g / 13, long)
    # An epsilon this large makes the step depend on the gradient's length.
    settings = CONSTANT | {"epsilon": 1.0, "max_grad_norm": 1.0}
    clipped, _ = run(OptimizerConfig(**settings), params, [long, short])[-1]
    settings["max_grad_norm"] = None
    expected, _ = run(OptimizerConfig(**settings), params, [short, short])[-1]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12), clipped, expected)


def test_adamw_reaches_a_target():
    target = jnp.array([0.4, 0.2, -0.5])
    config = OptimizerConfig(
        **CONSTANT | {"name": OptimizerName.ADAMW, "learning_rate": 0.2, "weight_decay": 0.0}
    )
    optimizer = make_optimizer(config, global_batch_size=1)

    def step(carry, _):
        weights, state = carry
        gradient = jax.grad(lambda w: jnp.mean(jnp.square(w - target)))(weights)
        updates, state = optimizer.update(gradient, state, weights)
        return (optax.apply_updates(weights, updates), state), None

    weights = jnp.array([0.1, -0.2, -0.1])
    (weights, _), _ = jax.lax.scan(step, (weights, optimizer.init(weights)), length=100)
    np.testing.assert_allclose(weights, target, atol=1e-2)


def rates(steps: list[int], batch: int = 4096, **settings: Any) -> list[float]:
    schedule = jax.jit(make_schedule(OptimizerConfig(**settings), global_batch_size=batch))
    return [float(schedule(step)) for step in steps]


def test_released_schedule():
    steps = [0, 1, 3124, 3125, 62_500, 124_999, 125_000, 200_000]
    expected = [0, 0.00176 / 3125, 1.7594368e-3, 1.716e-3, 8.8e-4, 0.00176 / 125_000, 0, 0]
    np.testing.assert_allclose(rates(steps), expected, rtol=1e-6)
    np.testing.assert_allclose(rates([31_250], poly_power=0.5), [0.00176 * 0.75**0.5], rtol=1e-6)


def test_schedule_from_the_end_of_warm_up():
    steps = [0, 5, 9, 10, 11, 60, 109, 110, 500]
    expected = [0, 1.0, 1.8, 2, 2 * 0.99**2, 2 * 0.5**2, 2 * 0.01**2, 0, 0]
    found = rates(
        steps,
        schedule=ScheduleName.POLY,
        learning_rate=2.0,
        poly_power=2.0,
        num_warmup_steps=10,
        num_train_steps=110,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (ScheduleName.COSINE, [2, 1 + 0.5**0.5, 1, 0.5, 0, 0]),
        (ScheduleName.WARMUP_STABLE_DECAY, [2, 2, 2, 2, 0, 0]),
        (ScheduleName.INVERSE_ROOT, [2 / (n / 20) ** 0.5 for n in (20, 50, 80, 100, 140, 150)]),
    ],
)
def test_schedules_that_albert_did_not_use(schedule, expected):
    """Right after warm-up, a quarter, half and two thirds on, at the end and beyond it."""
    settings: dict[str, Any] = {"learning_rate": 2.0, "num_warmup_steps": 20}
    settings |= {"num_train_steps": 140, "schedule": schedule}
    np.testing.assert_allclose(rates([0, 5, 19], **settings), [0, 0.5, 1.9], rtol=1e-6)
    found = rates([20, 50, 80, 100, 140, 150], **settings)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_a_stable_rate_decays_at_the_end_only():
    """Over the last fifth of 100 steps, with the power 2."""
    found = rates(
        [10, 79, 80, 81, 90, 99, 100],
        schedule=ScheduleName.WARMUP_STABLE_DECAY,
        learning_rate=1.0,
        poly_power=2.0,
        decay_share=0.2,
        num_warmup_steps=10,
        num_train_steps=100,
    )
    np.testing.assert_allclose(found, [1, 1, 1, 0.95**2, 0.25, 0.05**2, 0], rtol=1e-6)


@pytest.mark.parametrize("schedule", [ScheduleName.LEGACY_POLY, ScheduleName.POLY])
def test_the_last_of_ten_million_steps_has_an_exact_rate(schedule):
    last, total = 9_999_999, 10_000_000
    found = rates([last], schedule=schedule, num_train_steps=total)
    decay_steps = total - (3125 if schedule is ScheduleName.POLY else 0)
    np.testing.assert_allclose(found, [0.00176 / decay_steps], rtol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "after"),
    [(ScheduleName.LEGACY_POLY, [0.8, 0.5, 0]), (ScheduleName.POLY, [1, 0.625, 0])],
)
def test_late_warm_up_starts_at_zero_not_below(schedule, after):
    found = rates(
        [0, 9, 10, 15, 19, 20, 50, 100],
        schedule=schedule,
        learning_rate=1.0,
        start_warmup_step=10,
        num_warmup_steps=10,
        num_train_steps=100,
    )
    np.testing.assert_allclose(found, [0, 0, 0, 0.5, 0.9, *after], rtol=1e-6)


def test_rate_grows_with_the_root_of_the_batch():
    """The rates of LAMB's authors for BERT, 512 to 32k sequences, follow from the first one."""
    batches = [2**k for k in range(9, 16)]
    published = [6.25e-4, 8.84e-4, 1.25e-3, 1.77e-3, 2.5e-3, 3.54e-3, 5e-3]
    peak: dict[str, Any] = {"learning_rate": 6.25e-4, "schedule": ScheduleName.POLY}
    found = [rates([3125], batch, **peak, reference_batch_size=512)[0] for batch in batches]
    np.testing.assert_allclose(found, published, rtol=2e-3)
    assert rates([3125], 512, **peak) == rates([3125], 32768, **peak) == [found[0]]


def test_the_rate_follows_the_updates_made(x64):
    """The first update has rate 0, the next two rise, then the legacy jump."""
    params = {"bias": jnp.zeros(1)}
    settings = WARMED_UP | {"beta_1": 0.0, "beta_2": 0.0, "max_grad_norm": None}
    history = run(OptimizerConfig(**settings), params, [{"bias": jnp.ones(1)}] * 4)
    weights = [0.0] + [float(params["bias"][0]) for params, _ in history]
    np.testing.assert_allclose(-np.diff(weights), [0, 0.1 / 3, 0.2 / 3, 0.1 * 6 / 9], rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"name": "sgd"},
            "name must be one of lamb, adamw, muon, ademamix, schedule_free, sophia, got 'sgd'",
        ),
        (
            {"name": "schedule_free"},
            "schedule must be warmup_stable_decay for schedule_free, with decay_share 0, "
            "got 'legacy_poly'",
        ),
        (
            {"name": "schedule_free", "schedule": "warmup_stable_decay"},
            "decay_share must be 0 for schedule_free, got 0.1",
        ),
        (SCHEDULE_FREE | {"beta_1": 0.0}, "beta_1 must be above 0 for schedule_free, got 0.0"),
        (
            SCHEDULE_FREE | {"average_decay": 0.9},
            "average_decay must be none for schedule_free, which evaluates a mean of its own, "
            "got 0.9",
        ),
        (
            {"schedule": "linear"},
            "schedule must be one of legacy_poly, poly, cosine, warmup_stable_decay, inverse_root, "
            "got 'linear'",
        ),
        (
            {"schedule": "inverse_root", "num_warmup_steps": 0},
            "num_warmup_steps must be at least 1 for inverse_root, got 0",
        ),
        (
            {"schedule": "warmup_stable_decay", "num_train_steps": 100, "num_warmup_steps": 80}
            | {"decay_share": 0.25},
            "decay_share must be at most 0.2, what warm-up leaves, got 0.25",
        ),
        ({"learning_rate": float("nan")}, "learning_rate must be a number > 0, got nan"),
        ({"learning_rate": "1e-3"}, "learning_rate must be a number > 0, got '1e-3'"),
        ({"num_train_steps": 1.5}, "num_train_steps must be a whole number >= 1, got 1.5"),
        ({"weight_decay": -1.0}, "weight_decay must be a number >= 0, got -1.0"),
        ({"beta_2": 1.0}, "beta_2 must be a number in [0, 1), got 1.0"),
        ({"learning_rate": True}, "learning_rate must be a number > 0, got True"),
        ({"bias_correction": "no"}, "bias_correction must be true or false, got 'no'"),
        ({"bias_correction": None}, "bias_correction must be true or false, got None"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be a number > 0 or none, got 0.0"),
        (
            {"reference_batch_size": 0},
            "reference_batch_size must be a whole number >= 1 or none, got 0",
        ),
        (
            {"start_warmup_step": 5, "num_warmup_steps": 0},
            "start_warmup_step must be 0 without warm-up, got 5",
        ),
        (
            {"num_train_steps": 100, "start_warmup_step": 5},
            "num_warmup_steps must be at most num_train_steps - start_warmup_step = 95, got 3125",
        ),
    ],
)
def test_bad_settings_name_the_flag(unchecked, settings, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        OptimizerConfig(**settings)


def test_integers_and_plain_strings_are_converted(unchecked):
    config = OptimizerConfig(name="adamw", schedule="poly", learning_rate=1, max_grad_norm=None)
    assert config.name is OptimizerName.ADAMW
    assert config.schedule is ScheduleName.POLY
    assert isinstance(config.learning_rate, float)


@pytest.mark.parametrize("name", OptimizerName)
def test_rate_factors_scale_the_steps_of_the_parameters_that_they_name(name: OptimizerName) -> None:
    params = {"decoder": {"kernel": jnp.ones((2, 2))}, "albert": {"kernel": jnp.ones((2, 2))}}
    gradients = jax.tree.map(lambda x: 0.1 * x, params)

    def step(**options: Any) -> Any:
        config = make_config(name, **CONSTANT)
        optimizer = make_optimizer(config, global_batch_size=1, **options)
        update = optax.with_extra_args_support(optimizer).update
        updates, _ = update(gradients, optimizer.init(params), params, **sampled(gradients))
        return updates

    plain, scaled = step(), step(rate_factors={"decoder/": 3.0})
    expected = 3 * plain["decoder"]["kernel"]
    np.testing.assert_allclose(scaled["decoder"]["kernel"], expected, rtol=1e-6)
    np.testing.assert_array_equal(scaled["albert"]["kernel"], plain["albert"]["kernel"])
