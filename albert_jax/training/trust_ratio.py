"""LAMB's trust ratios, one for each tensor and for each layer of a stack."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, PyTree

STACKED_NAME = "layers"  # parameters below have two leading axes: copies and inner


class TrustRatioState(NamedTuple):
    """Trust ratios of the last step, in the tree of the adapted parameters; 1 before the first."""

    ratios: PyTree[Float[Array, "..."]]


def scale_by_trust_ratio() -> optax.GradientTransformation:
    """Multiply a tensor's update by its trust ratio ``|w| / |u|``, 1 if either norm is 0.

    Below `layers`, every index of the two leading axes [copies, inner] counts as a separate tensor,
    and so does every expert, on the third axis. The ratio is not bounded.

    Example: weights ``[3, 4]`` and update ``[0, 2]`` give the ratio 2.5 and the update ``[0, 5]``.

    Raises:
        ValueError: a parameter below `layers` has fewer than three axes.
    """

    def init(params: PyTree) -> TrustRatioState:
        def ones(path: Any, weights: Any) -> Array:
            return jnp.ones(weights.shape[: _stacked_axes(path, weights.shape)], weights.dtype)

        return TrustRatioState(jax.tree_util.tree_map_with_path(ones, params))

    def update(
        updates: PyTree, state: TrustRatioState, params: PyTree | None = None
    ) -> tuple[PyTree, TrustRatioState]:
        del state

        def ratio(path: Any, update: Array, weights: Array) -> Array:
            axes = tuple(range(_stacked_axes(path, weights.shape), weights.ndim))
            weight_norm, update_norm = _norm(weights, axes), _norm(update, axes)
            nonzero = (weight_norm > 0) & (update_norm > 0)
            return jnp.where(nonzero, weight_norm / jnp.where(nonzero, update_norm, 1), 1)

        def scale(ratio: Array, update: Array) -> Array:
            return update * ratio.reshape(ratio.shape + (1,) * (update.ndim - ratio.ndim))

        ratios = jax.tree_util.tree_map_with_path(ratio, updates, params)
        return jax.tree.map(scale, ratios, updates), TrustRatioState(ratios)

    return optax.GradientTransformation(init, update)


def trust_ratios(opt_state: PyTree) -> dict[str, Float[Array, "..."]]:
    """Return the trust ratios of the last step by parameter name, as metrics.

    A ratio is a scalar, or [copies, inner] below `layers`, or [copies, inner, experts] for experts.
    All are 1 before the first step. Only LAMB has ratios.

    Example: ``{"albert/encoder/layers/attention/query/kernel": [[1.12]], "albert/pooler/kernel":
    0.97, ...}``.
    """

    def is_state(node: Any) -> bool:
        return isinstance(node, TrustRatioState)

    return {
        parameter_name(path): ratio
        for state in filter(is_state, jax.tree.leaves(opt_state, is_leaf=is_state))
        for path, ratio in jax.tree_util.tree_leaves_with_path(state.ratios)
    }


def parameter_name(path: Any) -> str:
    """Return the name of a parameter by its path in a tree, such as ``albert/pooler/kernel``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _stacked_axes(path: Any, shape: tuple[int, ...]) -> int:
    """Return the number of leading axes whose indices count as separate tensors."""
    name = parameter_name(path)
    *above, last = name.split("/")
    if STACKED_NAME not in above:
        return 0
    if len(shape) < 3:
        raise ValueError(
            f"parameter {name} is below {STACKED_NAME!r} and so must have the leading axes "
            f"[copies, inner], got shape {shape}"
        )
    is_expert = above[-1].endswith("_experts") and last in ("down", "up")
    return 3 if is_expert else 2


def _norm(x: Array, axes: tuple[int, ...]) -> Array:
    return jnp.sqrt(jnp.square(x).sum(axes))
