"""Training step and evaluation step: pure functions, the same for every task."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Int32, PyTree

from albert_jax.devices.fingerprint import fingerprint
from albert_jax.devices.mesh import DATA_AXIS
from albert_jax.training.losses import (
    LossFn,
    Metrics,
    Ratio,
    WeightFn,
    safe_divide,
    total_loss,
)
from albert_jax.training.skipping import (
    StepHistory,
    deviations,
    empty_history,
    extend_history,
)

FINGERPRINTS = "fingerprints"  # the metric with a value for each shard of the rows
DROPOUT_STREAM = 0  # folded into the root key; every other use of the key needs its own number
SAMPLING_STREAM = 1  # for labels

# (parameters, batch, key) -> gradients and metrics of the global batch
GradientFn = Callable[[PyTree, Any, Array], tuple[PyTree, Metrics]]


class TrainState(NamedTuple):
    """Everything that a step changes; the random key and data position follow from `step`."""

    step: Int32[Array, ""]  # batches taken, whether their steps were applied or not
    params: PyTree
    opt_state: PyTree
    history: StepHistory | None = None  # only in a run that skips steps

    def without_history(self) -> dict[str, PyTree]:
        """Return the fields that every run has."""
        return {"step": self.step, "params": self.params, "opt_state": self.opt_state}


def create_train_state(
    params: PyTree, optimizer: optax.GradientTransformation, *, keep_history: bool = False
) -> TrainState:
    """Create the state before the first step."""
    history = empty_history() if keep_history else None
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), history)


def make_gradient_fn(
    loss_fn: LossFn,
    weight_fn: WeightFn,
    *,
    row_axes: Sequence[str] = (DATA_AXIS,),
    accumulation_steps: int = 1,
    reduction_dtype: DTypeLike = jnp.float32,
    fingerprints: bool = False,
    root_weights: bool = False,
) -> GradientFn:
    """Make the function that computes the gradients of the total of a task's objectives.

    Each objective is a sum divided by its weight. The function runs on each shard of the rows. It
    sums gradients over layers and micro-batches locally, and over shards once, at the end. The
    weights of the global batch are needed before the first backward pass; they depend on the batch
    alone.

    Args:
        loss_fn: maps (parameters, batch, dropout key) to sums and weights.
        weight_fn: maps a batch to the denominators of those entries of `loss_fn` that are
            objectives.
        row_axes: mapped axes over which rows are sharded; none on a single device.
        accumulation_steps: number of micro-batches of a shard.
        reduction_dtype: dtype to which gradients are rounded before they are summed over the axes;
            metrics, and gradients of lower precision, are not rounded.
        fingerprints: True to add the metric `FINGERPRINTS`, with a value for each shard.
        root_weights: True to divide each sum by the square root of its weight. With sampled labels,
            the expected square of such a gradient is the diagonal of the Gauss-Newton matrix of the
            objectives: labels are independent, so the expected square of a sum over n of them is n
            times that of one.
    """

    axes = tuple(row_axes)

    def gradients(params: PyTree, batch: Any, key: Array) -> tuple[PyTree, Metrics]:
        shard = jax.lax.axis_index(axes) if axes else jnp.zeros((), jnp.int32)
        key = jax.random.fold_in(key, shard)
        weights = jax.lax.psum(weight_fn(batch), axes)
        if root_weights:
            weights = jax.tree.map(jnp.sqrt, weights)

        def micro_loss(params: PyTree, micro: Any, key: Array) -> tuple[Array, Metrics]:
            metrics = loss_fn(params, micro, key)
            losses = [safe_divide(metrics[name].sum, weight) for name, weight in weights.items()]
            return jnp.stack(losses).sum(), metrics

        def micro_gradients(micro: Any, key: Array) -> tuple[PyTree, Metrics]:
            (_, metrics), grads = jax.value_and_grad(micro_loss, has_aux=True)(params, micro, key)
            return grads, metrics

        if accumulation_steps == 1:
            local = micro_gradients(batch, key)
        else:
            local = _accumulate(micro_gradients, batch, key, accumulation_steps, zero=0 * shard)
        grads, metrics = local
        if fingerprints:
            mine = jnp.zeros(jax.lax.psum(1, axes), jnp.uint32).at[shard].set(fingerprint(local))
            metrics = metrics | {FINGERPRINTS: Ratio(mine, mine)}
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
    """Sum gradients and metrics over micro-batches; row r is in micro-batch ``r % steps``.

    `zero` is a 0 whose type varies over the row axes, like that of the sums: the carry of a scan
    must keep its type.
    """

    def split(field: Array) -> Array:
        rows = field.shape[0]
        if rows % steps:
            raise ValueError(f"{rows} rows do not divide into {steps} micro-batches")
        return field.reshape(rows // steps, steps, *field.shape[1:]).swapaxes(0, 1)

    def add(total: PyTree, xs: tuple[Any, Array]) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, micro_gradients(*xs)), None

    micros = jax.tree.map(split, batch), jax.random.split(key, steps)
    shapes = jax.eval_shape(micro_gradients, *jax.tree.map(lambda x: x[0], micros))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype) + zero.astype(s.dtype), shapes)
    total, _ = jax.lax.scan(add, zeros, micros)
    return total


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    weight_fn: WeightFn,
    sampled_loss_fn: LossFn | None = None,
    accumulation_steps: int = 1,
    reduction_dtype: DTypeLike = jnp.float32,
    spike_sigmas: float | None = None,
    fingerprints: bool = False,
    row_axes: Sequence[str] = (DATA_AXIS,),
    map_over_rows: Callable[[GradientFn], GradientFn] = lambda gradients: gradients,
) -> Callable[[TrainState, Any, Array], tuple[TrainState, Metrics]]:
    """Make the step ``(state, batch, rng) -> (state, metrics)``, to be compiled by `parallel`.

    Its random numbers depend only on ``rng`` (the run's root key) and ``state.step``. A step whose
    loss or gradients are not finite is not applied, and its metric `finite` is 0. A spike is not
    applied either, and its metric `spike` is 1. A step that is not applied leaves parameters and
    moments unchanged, but the number of the next batch and the learning rate still advance.

    Args:
        loss_fn: the task's loss, see `losses.LossFn`.
        optimizer: the gradient transformation.
        weight_fn: the denominators of the task's objectives, see `losses.WeightFn`.
        sampled_loss_fn: the loss on sampled labels, for an optimizer whose update takes a function
            ``sampled_gradients`` and calls it in some steps, such as Sophia.
        accumulation_steps: number of micro-batches of a step.
        reduction_dtype: see `make_gradient_fn`.
        spike_sigmas: a step is a spike if its loss or gradient norm is more than this many standard
            deviations above the last steps; needs a state with a history. None: there are no
            spikes.
        fingerprints: see `make_gradient_fn`.
        row_axes: see `make_gradient_fn`.
        map_over_rows: maps the gradient function over the row axes; the identity if the whole step
            is already mapped over them.
    """
    make_gradients = functools.partial(
        make_gradient_fn,
        weight_fn=weight_fn,
        row_axes=row_axes,
        accumulation_steps=accumulation_steps,
        reduction_dtype=reduction_dtype,
    )
    gradients = map_over_rows(make_gradients(loss_fn, fingerprints=fingerprints))
    sampled = sampled_loss_fn and map_over_rows(make_gradients(sampled_loss_fn, root_weights=True))

    def update(state: TrainState, grads: PyTree, batch: Any, rng: Array) -> tuple[PyTree, PyTree]:
        if sampled is None:
            return optimizer.update(grads, state.opt_state, state.params)
        key = jax.random.fold_in(jax.random.fold_in(rng, SAMPLING_STREAM), state.step)
        return optax.with_extra_args_support(optimizer).update(
            grads,
            state.opt_state,
            state.params,
            sampled_gradients=lambda: sampled(state.params, batch, key)[0],
        )

    def train_step(state: TrainState, batch: Any, rng: Array) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.fold_in(rng, DROPOUT_STREAM), state.step)
        grads, metrics = gradients(state.params, batch, key)
        prints = {FINGERPRINTS: metrics.pop(FINGERPRINTS)} if fingerprints else {}
        grad_norm = optax.tree.norm(grads)
        sums = jnp.stack([ratio.sum for ratio in metrics.values()])
        applied = finite = jnp.isfinite(grad_norm) & jnp.isfinite(sums).all()
        flags, history = {"finite": finite}, state.history
        if history is not None:
            loss = total_loss(metrics)
            if spike_sigmas is not None:
                spike = finite & _is_spike(history, loss, grad_norm, spike_sigmas)
                flags["spike"], applied = spike, finite & ~spike
            history = extend_history(history, loss, grad_norm, finite)

        updates, opt_state = update(state, grads, batch, rng)
        if sampled is not None:  # sampled gradients may overflow, too
            sound = jnp.isfinite(optax.tree.norm(_floats(opt_state)))
            flags["finite"], applied = flags["finite"] & sound, applied & sound
        params = optax.apply_updates(state.params, updates)
        params, opt_state = _choose(applied, (params, opt_state), (state.params, state.opt_state))
        one = jnp.ones(())
        metrics |= {"grad_norm": Ratio(grad_norm, one)} | prints
        metrics |= {name: Ratio(flag.astype(float), one) for name, flag in flags.items()}
        return TrainState(state.step + 1, params, opt_state, history), metrics

    return train_step


def _floats(tree: PyTree) -> list[Array]:
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]


def _is_spike(
    history: StepHistory, loss: Array, grad_norm: Array, sigmas: float
) -> Bool[Array, ""]:
    of_loss = deviations(history.losses, history.finite_steps, loss)
    of_norm = deviations(history.grad_norms, history.finite_steps, grad_norm)
    return jnp.maximum(of_loss, of_norm) > sigmas


def _choose(applied: Bool[Array, ""], after: PyTree, before: PyTree) -> PyTree:
    """Return `after` if a step is applied, else `before`, except that schedules always advance."""

    def is_schedule(node: Any) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    def choose(new: Any, old: Any) -> Any:
        return new if is_schedule(new) else jnp.where(applied, new, old)

    return jax.tree.map(choose, after, before, is_leaf=is_schedule)


def make_eval_step(loss_fn: LossFn) -> Callable[[PyTree, Any], Metrics]:
    """Make the step ``(params, batch) -> metrics`` without dropout; metrics add up over batches."""

    def eval_step(params: PyTree, batch: Any) -> Metrics:
        return loss_fn(params, batch, None)

    return eval_step
