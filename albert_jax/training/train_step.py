"""The training step and the evaluation step: pure functions, the same for every task."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Int32, PyTree

from albert_jax.training.losses import LossFn, Metrics, Ratio, WeightFn, divide

DATA_AXIS = "data"
DROPOUT_STREAM = 0  # numbers the independent uses of a run's one random key

# (parameters, batch, key) -> gradients and metrics of the global batch
GradientFn = Callable[[PyTree, Any, Array], tuple[PyTree, Metrics]]


class TrainState(NamedTuple):
    """Everything that a step changes; the random key and the data's position follow from `step`."""

    step: Int32[Array, ""]
    params: PyTree
    opt_state: PyTree


def create_train_state(params: PyTree, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def make_gradient_fn(
    loss_fn: LossFn,
    weight_fn: WeightFn,
    *,
    row_axes: Sequence[str] = (DATA_AXIS,),
    accumulation_steps: int = 1,
    reduction_dtype: DTypeLike = jnp.float32,
) -> GradientFn:
    """Gradients of the sum of a task's objectives, each its sum over its weight.

    The function runs once per part of the rows, on that part. It adds up gradients over layers and
    micro-batches locally, and over the parts once, at its end. The weights of the whole global
    batch must be known before the first backward pass; they depend on the batch alone.

    Args:
        loss_fn: (parameters, batch, dropout key) to sums and weights.
        weight_fn: batch to the denominators of those entries of `loss_fn` that are objectives.
        row_axes: the mapped axes along which rows are cut; none where one device has them all.
        accumulation_steps: micro-batches that a part is cut into, evenly.
        reduction_dtype: what gradients are rounded to before they are added up over the axes;
            metrics and gradients of lower precision stay as they are.
    """

    axes = tuple(row_axes)

    def gradients(params: PyTree, batch: Any, key: Array) -> tuple[PyTree, Metrics]:
        part = jax.lax.axis_index(axes) if axes else jnp.zeros((), jnp.int32)
        key = jax.random.fold_in(key, part)
        weights = jax.lax.psum(weight_fn(batch), axes)

        def micro_loss(params: PyTree, micro: Any, key: Array) -> tuple[Array, Metrics]:
            metrics = loss_fn(params, micro, key)
            objectives = [divide(metrics[name].sum, weight) for name, weight in weights.items()]
            return jnp.stack(objectives).sum(), metrics

        def micro_gradients(micro: Any, key: Array) -> tuple[PyTree, Metrics]:
            (_, metrics), grads = jax.value_and_grad(micro_loss, has_aux=True)(params, micro, key)
            return grads, metrics

        if accumulation_steps == 1:
            local = micro_gradients(batch, key)
        else:
            local = _accumulate(micro_gradients, batch, key, accumulation_steps, zero=0 * part)
        grads, metrics = local
        narrow = jax.tree.map(lambda g: g.astype(_narrower(g.dtype, reduction_dtype)), grads)
        total, metrics = jax.lax.psum((narrow, metrics), axes)
        return jax.tree.map(lambda t, g: t.astype(g.dtype), total, grads), metrics

    return gradients


def _narrower(dtype: DTypeLike, wanted: DTypeLike) -> DTypeLike:
    return wanted if jnp.finfo(wanted).bits < jnp.finfo(dtype).bits else dtype


def _accumulate(
    micro_gradients: Callable[[Any, Array], tuple[PyTree, Metrics]],
    batch: Any,
    key: Array,
    steps: int,
    *,
    zero: Int32[Array, ""],
) -> tuple[PyTree, Metrics]:
    """Adds up gradients and metrics over micro-batches; row r goes to micro-batch ``r % steps``.

    `zero` is a 0 that counts as different from part to part of the rows, as the sums do: a scan
    wants to know from the start.
    """

    def cut(field: Array) -> Array:
        rows = field.shape[0]
        if rows % steps:
            raise ValueError(f"{rows} rows do not divide into {steps} micro-batches")
        return field.reshape(rows // steps, steps, *field.shape[1:]).swapaxes(0, 1)

    def add(total: PyTree, xs: tuple[Any, Array]) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, micro_gradients(*xs)), None

    micros = jax.tree.map(cut, batch), jax.random.split(key, steps)
    shapes = jax.eval_shape(micro_gradients, *jax.tree.map(lambda x: x[0], micros))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype) + zero.astype(s.dtype), shapes)
    total, _ = jax.lax.scan(add, zeros, micros)
    return total


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    weight_fn: WeightFn,
    accumulation_steps: int = 1,
    reduction_dtype: DTypeLike = jnp.float32,
    row_axes: Sequence[str] = (DATA_AXIS,),
    map_over_rows: Callable[[GradientFn], GradientFn] = lambda gradients: gradients,
) -> Callable[[TrainState, Any, Array], tuple[TrainState, Metrics]]:
    """A step ``(state, batch, rng) -> (state, metrics)``, to be compiled by `parallel`.

    Its random numbers come from ``rng`` (the run's root key) and ``state.step`` alone. A step whose
    loss or gradients are not finite leaves the whole state as it was and says so: `finite` is 0.

    Args:
        loss_fn: the task's loss, see `losses.LossFn`.
        optimizer: what turns gradients into updates.
        weight_fn: the denominators of the task's objectives, see `losses.WeightFn`.
        accumulation_steps: micro-batches a step.
        reduction_dtype: what gradients are added up in over the row axes.
        row_axes: see `make_gradient_fn`.
        map_over_rows: binds the row axes for the gradient function; the identity where the whole
            step already runs once per part of the rows.
    """
    gradients = map_over_rows(
        make_gradient_fn(
            loss_fn,
            weight_fn,
            row_axes=row_axes,
            accumulation_steps=accumulation_steps,
            reduction_dtype=reduction_dtype,
        )
    )

    def train_step(state: TrainState, batch: Any, rng: Array) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.fold_in(rng, DROPOUT_STREAM), state.step)
        grads, metrics = gradients(state.params, batch, key)
        grad_norm = optax.tree.norm(grads)
        sums = jnp.stack([ratio.sum for ratio in metrics.values()])
        finite = jnp.isfinite(grad_norm) & jnp.isfinite(sums).all()

        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        after = TrainState(state.step + 1, params, opt_state)
        after = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, state)
        one = jnp.ones(())
        metrics |= {"grad_norm": Ratio(grad_norm, one), "finite": Ratio(finite.astype(float), one)}
        return after, metrics

    return train_step


def make_eval_step(loss_fn: LossFn) -> Callable[[PyTree, Any], Metrics]:
    """A step ``(params, batch) -> metrics`` without dropout. Metrics of several batches add up."""

    def eval_step(params: PyTree, batch: Any) -> Metrics:
        return loss_fn(params, batch, None)

    return eval_step
