"""A step that is computed twice, on devices that compute something else."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_regression import ADAMW, initialize, loss_fn, make_batch, weight_fn

from albert_jax.devices.fingerprint import fingerprint
from albert_jax.devices.mesh import make_mesh
from albert_jax.devices.sharding import place_batch
from albert_jax.training.determinism import (
    CheckedStep,
    DeterminismError,
    StepFingerprints,
    compare_fingerprints,
    compile_step_fingerprints,
)
from albert_jax.training.parallel import initialize_state


def check(
    mesh: Any, *, disturb: Any = lambda batch: batch, corrupt_copy_on: int | None = None
) -> list[int]:
    """Train four steps, of which every second one is checked; return those that were taken."""
    state = initialize_state(initialize, ADAMW, jax.random.key(0), mesh)
    if corrupt_copy_on is not None:
        state.params["kernel"] = corrupt_copy(state.params["kernel"], corrupt_copy_on)
    fingerprints = compile_step_fingerprints(loss_fn, ADAMW, state, mesh, weight_fn=weight_fn)

    def compute(state: Any, batch: Any, key: Any) -> StepFingerprints:
        return fingerprints(state, disturb(batch), key)

    taken: list[int] = []

    def step(state: Any, batch: Any, key: Any) -> Any:
        taken.append(len(taken) + 1)
        return state, {}

    checked = CheckedStep(step, compute, mesh, every=2, step=0)
    for number in range(4):
        state, _ = checked(state, place_batch(make_batch(number), mesh), jax.random.key(1))
    return taken


def corrupt_copy(array: jax.Array, device: int) -> jax.Array:
    """The array, with a bit flipped in what one device holds of it."""
    copies = [np.array(shard.data) for shard in array.addressable_shards]
    copies[device].view(np.uint32)[-1] ^= 1
    placed = [
        jax.device_put(copy, shard.device)
        for copy, shard in zip(copies, array.addressable_shards, strict=True)
    ]
    return jax.make_array_from_single_device_arrays(array.shape, array.sharding, placed)


def test_devices_that_compute_the_same_are_not_reported() -> None:
    assert check(make_mesh()) == [1, 2, 3, 4]
    assert check(make_mesh(fsdp=2, tensor=2)) == [1, 2, 3, 4]
    assert check(make_mesh(devices=jax.devices()[:1])) == [1, 2, 3, 4]


def test_a_wrong_gradient_is_traced_to_the_device_that_computed_it() -> None:
    """Device 5 reads a number with a flipped bit when step 4 is computed for the second time."""
    calls = 0

    def disturb(batch: Any) -> Any:
        nonlocal calls
        calls += 1
        return batch | {"y": corrupt_copy(batch["y"], 5)} if calls == 4 else batch

    with pytest.raises(DeterminismError, match="step 4, computed twice, is wrong on") as raised:
        check(make_mesh(), disturb=disturb)
    assert raised.value.devices == (jax.devices()[5],)
    assert f"{jax.devices()[5]} (process 0): its gradients" in str(raised.value)


def test_a_copy_of_the_state_that_differs_is_traced_to_its_device() -> None:
    with pytest.raises(DeterminismError, match=r"step 2.* the copies on other devices") as raised:
        check(make_mesh(), corrupt_copy_on=6)
    assert raised.value.devices == (jax.devices()[6],)


def test_a_wrong_update_and_copies_without_a_majority_are_reported() -> None:
    mesh = make_mesh(devices=jax.devices()[:2])
    gradients, states = np.zeros(2, np.uint32), np.zeros((2, 1, 1), np.uint32)
    good, other = StepFingerprints(gradients, states), states.copy()
    other[1] = 1
    with pytest.raises(DeterminismError, match="its new state") as raised:
        compare_fingerprints(good, StepFingerprints(gradients, other), mesh, 1)
    assert raised.value.devices == (jax.devices()[1],)
    with pytest.raises(DeterminismError, match="the copies on other devices") as raised:
        both = StepFingerprints(gradients, other)
        compare_fingerprints(both, both, mesh, 1)
    assert raised.value.devices == tuple(jax.devices()[:2])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int32", "uint8"])
def test_a_flipped_bit_changes_the_fingerprint(dtype: str) -> None:
    values = (jnp.arange(24).reshape(2, 3, 4) % 2).astype(dtype)
    compute = jax.jit(fingerprint)
    found = {int(compute({"a": values, "b": values}))}
    for changed in (values.at[1, 2, 3].set(1 - values[1, 2, 3]), values[::-1, ::-1, ::-1]):
        found |= {int(compute({"a": changed, "b": values}))}
        found |= {int(compute({"a": values, "b": changed}))}
    assert len(found) == 5
