"""LAMB and AdamW as they were used to train ALBERT, and newer optimizers.

Each is an optax chain: clip by global norm, moments, weight decay, trust ratio (LAMB only), rate::

    m <- beta_1 m + (1 - beta_1) g        v <- beta_2 v + (1 - beta_2) g^2
    u  = m / (sqrt(v) + epsilon) + weight_decay w
    w <- w - rate(step) * ratio * u       ratio = |w| / |u|, or 1 if either norm is 0

`optax.lamb` is a different optimizer of the same name. What differs, and why:

- The moments are not bias-corrected by default, as the published weights were trained without. The
  first update is then about three times as large. LAMB's trust ratio cancels that for the tensors
  that it adapts, and warm-up does so for the rest.
- Biases and layer norms are neither decayed nor adapted: they take the plain step at the full rate.
  `optax.lamb` can exclude them from the decay, but gives every tensor a ratio; a bias, which is
  initialized to zero and stays small, would then hardly move.
- Unshared layers that are stacked for a scan each have their own ratio. One norm over the stack
  would make a layer's step depend on its neighbors and on how the parameters happen to be stored.
- The ratios of the last step are kept in the state, for metrics.

Clipping applies to the gradient of the global batch. The released code clips on every core before
it sums, so that its clipping depends on the number of cores.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jax import Array
from jaxtyping import Float, Int32, PyTree

from albert_jax.training.config import OptimizerConfig, OptimizerName
from albert_jax.training.schedule import make_schedule
from albert_jax.training.trust_ratio import STACKED_NAME, parameter_name, scale_by_trust_ratio

# Neither decayed nor adapted.
EXCLUDED_NAMES = frozenset({"bias", "layer_norm", "output_layer_norm", "depth_signal"})
_LEAST_CURVATURE = 1e-12  # Sophia's epsilon, as in its paper
_ADAM_RMS = 0.2  # approximate root mean square of Adam's updates
_mean_of_schedule_free = jax.jit(optax.contrib.schedule_free_eval_params)


def make_optimizer(
    config: OptimizerConfig,
    *,
    global_batch_size: int,
    rate_factors: Mapping[str, float] = MappingProxyType({}),
) -> optax.GradientTransformation:
    """Make the optimizer for parameters named as in `AlbertForPreTraining`; see this module.

    Its updates are added to the parameters (`optax.apply_updates`). Moments have the dtype of their
    parameters. The schedule's step is the number of updates made.

    Args:
        config: the optimizer and its settings.
        global_batch_size: rows per step.
        rate_factors: factors of the learning rate, by prefix of a parameter's name.
    """
    clip = config.max_grad_norm
    rate = make_schedule(config, global_batch_size=global_batch_size)
    steps = [
        *UPDATE_RULES[config.name](config),
        optax.scale_by_learning_rate(rate),
        *([scale_by_name(rate_factors)] if rate_factors else []),
    ]
    if config.name is OptimizerName.SCHEDULE_FREE:
        steps = [optax.contrib.schedule_free(optax.chain(*steps), rate, config.beta_1)]
    return optax.chain(
        optax.identity() if clip is None else optax.clip_by_global_norm(clip),
        *steps,
        *([average_parameters(config.average_decay)] if config.average_decay else []),
    )


class AverageState(NamedTuple):
    """A running mean of the parameters, in their tree, and the number of updates in it."""

    averaged: Int32[Array, ""]
    average: PyTree[Float[Array, "..."]]


def average_parameters(decay: float) -> optax.GradientTransformation:
    """Keep the mean ``a <- d a + (1 - d) w`` of the parameters w; leave the updates unchanged.

    After n updates d is ``(1 + n) / (10 + n)``, but at most `decay`, so that the random initial
    parameters do not stay in the mean for long.
    """

    def init(params: PyTree) -> AverageState:
        copy = jax.tree.map(lambda weights: jnp.array(weights, copy=True), params)
        return AverageState(jnp.zeros((), jnp.int32), copy)

    def update(
        updates: PyTree, state: AverageState, params: PyTree | None = None
    ) -> tuple[PyTree, AverageState]:
        averaged = state.averaged + 1
        kept = jnp.minimum(decay, (1 + averaged) / (10 + averaged))
        mean = jax.tree.map(
            lambda a, w: (kept * a + (1 - kept) * w).astype(a.dtype),
            state.average,
            optax.apply_updates(params, updates),
        )
        return updates, AverageState(averaged, mean)

    return optax.GradientTransformation(init, update)


def evaluated_parameters(params: PyTree, opt_state: PyTree) -> PyTree:
    """Return the parameters to evaluate and export: their running mean if one is kept."""

    def is_state(node: Any) -> bool:
        return isinstance(node, AverageState | optax.contrib.ScheduleFreeState)

    for state in filter(is_state, jax.tree.leaves(opt_state, is_leaf=is_state)):
        if isinstance(state, AverageState):
            return state.average
        return _mean_of_schedule_free(state, params)
    return params


def scale_by_name(factors: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiply a parameter's update by the factor of the first prefix that matches its name.

    Example: ``{"decoder/": 10}`` makes the steps of a decoder ten times as large as the encoder's.
    """

    def scale(path: Any, update: Array) -> Array:
        name = parameter_name(path)
        for prefix, factor in factors.items():
            if name.startswith(prefix):
                return update * factor
        return update

    return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(scale, updates))


def lamb(config: OptimizerConfig) -> tuple[optax.GradientTransformation, ...]:
    """Return moments, weight decay and trust ratios."""
    return *adamw(config)[:2], optax.masked(scale_by_trust_ratio(), adaptation_mask)


def adamw(config: OptimizerConfig) -> tuple[optax.GradientTransformation, ...]:
    """Return moments and weight decay, and an identity, so that the state has LAMB's structure."""
    decay = optax.add_decayed_weights(config.weight_decay, mask=adaptation_mask)
    return scale_by_moments(config), decay, optax.identity()


def muon(config: OptimizerConfig) -> tuple[optax.GradientTransformation, ...]:
    """Return orthogonalized momentum for the layers' matrices, moments for the rest, and decay.

    The matrix of each copy and inner block below `layers` is orthogonalized separately. Its update
    is scaled to about the root mean square of Adam's (Liu et al. 2025, equation 4), so that one
    learning rate fits both kinds of parameters.
    """
    matrices = optax.chain(
        optax.contrib.scale_by_muon(
            beta=config.muon_momentum, weight_dimension_numbers=_last_two_axes
        ),
        optax.stateless_with_tree_map(
            lambda update, _: update * _ADAM_RMS * math.sqrt(max(update.shape[-2:]))
        ),
    )
    rules = {"matrices": matrices, "others": scale_by_moments(config)}
    scaling = optax.partition(rules, _matrices_and_others)
    return scaling, *adamw(config)[1:]


def ademamix(config: OptimizerConfig) -> tuple[optax.GradientTransformation, ...]:
    """Return a fast plus a slow mean gradient over the root of the second moment, and decay.

    The fast mean and the second moment are bias-corrected; the slow mean is not.
    """
    scaling = optax.contrib.scale_by_ademamix(
        config.beta_1, config.beta_2, config.slow_beta, config.slow_share, config.epsilon
    )
    return scaling, *adamw(config)[1:]


def schedule_free(config: OptimizerConfig) -> tuple[optax.GradientTransformation, ...]:
    """Return gradients over the root of the second moment, and decay: AdamW without momentum.

    `make_optimizer` wraps these steps in `optax.contrib.schedule_free`. They move z. Gradients are
    taken, and weights decay, at the parameters ``y = beta_1 x + (1 - beta_1) z``, where x is the
    mean of all z, weighted by the square of the rate. The second moment is bias-corrected.
    """
    scaling = optax.scale_by_rms(
        config.beta_2, config.epsilon, eps_in_sqrt=False, bias_correction=True
    )
    return scaling, *adamw(config)[1:]


def sophia(config: OptimizerConfig) -> tuple[optax.GradientTransformation, ...]:
    """Return the mean gradient over the curvature, each entry clipped to [-1, 1], and decay.

    The curvature is the diagonal of the Gauss-Newton matrix, estimated every few steps (Sophia-G).
    The mean gradient is bias-corrected.
    """
    scaling = optax.contrib.sophia(
        -1.0,  # the sign and the rate come last, as with all rules
        b1=config.beta_1,
        b2=config.curvature_beta,
        eps=_LEAST_CURVATURE,
        weight_decay=0.0,  # applied by name, below
        gamma=config.curvature_scale,
        update_interval=config.curvature_every,
        hessian_diagonal_fn=gauss_newton_diagonal(),
    )
    return scaling, *adamw(config)[1:]


def gauss_newton_diagonal() -> optax.GradientTransformationExtraArgs:
    """Estimate the diagonal of the Gauss-Newton matrix by squared gradients on sampled labels.

    The update takes a function ``sampled_gradients``, which returns the gradients on labels sampled
    from the model. They are those of the global batch, summed over micro-batches and devices before
    they are squared (`train_step.make_gradient_fn` with ``root_weights``).
    """

    def update(
        updates: PyTree,
        state: optax.EmptyState,
        params: PyTree | None = None,
        *,
        sampled_gradients: Callable[[], PyTree],
        **others: Any,
    ) -> tuple[PyTree, optax.EmptyState]:
        del updates, params, others
        return jax.tree.map(jnp.square, sampled_gradients()), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


# Transformations between clipping and learning rate; stored states rely on their number and order.
UPDATE_RULES: dict[
    OptimizerName, Callable[[OptimizerConfig], tuple[optax.GradientTransformation, ...]]
] = {
    OptimizerName.LAMB: lamb,
    OptimizerName.ADAMW: adamw,
    OptimizerName.MUON: muon,
    OptimizerName.ADEMAMIX: ademamix,
    OptimizerName.SCHEDULE_FREE: schedule_free,
    OptimizerName.SOPHIA: sophia,
}


def _matrices_and_others(params: PyTree) -> PyTree[str]:
    """Name the kernels below `layers` ``matrices``, and all other parameters ``others``."""

    def kind(path: Any, _: Any) -> str:
        names = parameter_name(path).split("/")
        return "matrices" if STACKED_NAME in names and names[-1] == "kernel" else "others"

    return jax.tree_util.tree_map_with_path(kind, params)


def _last_two_axes(params: PyTree) -> PyTree[optax.contrib.MuonDimensionNumbers]:
    axes = optax.contrib.MuonDimensionNumbers(reduction_axis=-2, output_axis=-1)
    return jax.tree.map(lambda _: axes, params)


def adaptation_mask(params: PyTree) -> PyTree[bool]:
    """Return True for tensors that are decayed and adapted.

    Names decide, since ranks cannot: a stacked bias has rank 3.

    Example: ``{"layers": {"query": {"kernel": k, "bias": b}}, "layer_norm": {"scale": s}}`` gives
    ``{"layers": {"query": {"kernel": True, "bias": False}}, "layer_norm": {"scale": False}}``.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, _: EXCLUDED_NAMES.isdisjoint(parameter_name(path).split("/")), params
    )


def scale_by_moments(config: OptimizerConfig) -> optax.GradientTransformation:
    """Scale gradients to ``m / (sqrt(v) + epsilon)``, with or without bias correction.

    The state is that of `optax.scale_by_adam`; so is the result if `bias_correction` is set.
    """

    def init(params: PyTree) -> optax.ScaleByAdamState:
        # Two trees of zeros: a state that contains a buffer twice cannot be donated.
        mean, square = optax.tree.zeros_like(params), optax.tree.zeros_like(params)
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), mean, square)

    def update(
        grads: PyTree, state: optax.ScaleByAdamState, params: PyTree | None = None
    ) -> tuple[PyTree, optax.ScaleByAdamState]:
        del params
        grads = optax.tree.cast_like(grads, state.mu)
        mean = optax.tree.update_moment(grads, state.mu, config.beta_1, 1)
        square = optax.tree.update_moment(grads, state.nu, config.beta_2, 2)
        state = optax.ScaleByAdamState(state.count + 1, mean, square)
        if config.bias_correction:
            mean = optax.tree.bias_correction(mean, config.beta_1, state.count)
            square = optax.tree.bias_correction(square, config.beta_2, state.count)
        return jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + config.epsilon), mean, square), state

    return optax.GradientTransformation(init, update)
