"""The state of a run: initialized, or restored from a checkpoint."""

import functools
from collections.abc import Callable

import jax
import optax
from jax import Array
from jax.sharding import Mesh
from jaxtyping import PyTree

from albert_jax.devices.sharding import state_shardings
from albert_jax.training.checkpoint import Checkpoints
from albert_jax.training.parallel import initialize_state
from albert_jax.training.skipping import empty_history
from albert_jax.training.train_step import TrainState, create_train_state

HISTORY = "history"  # item of a checkpoint, beside the state that every run has


class RunStates:
    """States of a run, sharded over its devices.

    Args:
        initialize: returns the parameters for a random key.
        optimizer: the gradient transformation, for its state.
        key: random key of the parameters.
        mesh: the devices.
        keep_history: True for a run that skips steps.
    """

    def __init__(
        self,
        initialize: Callable[[Array], PyTree],
        optimizer: optax.GradientTransformation,
        key: Array,
        mesh: Mesh,
        *,
        keep_history: bool,
    ) -> None:
        self._initialize, self._optimizer, self._key, self._mesh = initialize, optimizer, key, mesh
        self._keep_history = keep_history
        self._create = functools.partial(
            create_train_state, optimizer=optimizer, keep_history=keep_history
        )

    def restore(self, checkpoints: Checkpoints) -> TrainState | None:
        """Return the state of the newest checkpoint, or None if there is none yet."""
        wanted = self.shapes()
        fields = checkpoints.restore(wanted.without_history())
        if fields is None or wanted.history is None:
            return None if fields is None else TrainState(**fields)
        history = checkpoints.restore(wanted.history, item=HISTORY)
        if history is None:  # the run did not skip steps when it was saved
            shardings = jax.tree.map(lambda leaf: leaf.sharding, wanted.history)
            history = jax.jit(empty_history, out_shardings=shardings)()
        return TrainState(**fields, history=history)

    def initialize(self, initial_parameters: Callable[[], PyTree] | None) -> TrainState:
        """Return the state of step 0.

        Args:
            initial_parameters: reads the parameters to start from; None: random ones.

        Raises:
            InputError: the stored parameters do not fit the model.
        """
        if initial_parameters is None:
            return initialize_state(
                self._initialize,
                self._optimizer,
                self._key,
                self._mesh,
                keep_history=self._keep_history,
            )
        shardings = jax.tree.map(lambda leaf: leaf.sharding, self.shapes())
        create = jax.jit(self._create, out_shardings=shardings)
        state: TrainState = create(initial_parameters())
        return state

    def shapes(self) -> TrainState:
        """Return the shapes, types and shardings of a state."""

        def create(key: Array) -> TrainState:
            return self._create(self._initialize(key))

        shapes = jax.eval_shape(create, self._key)
        state: TrainState = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            shapes,
            state_shardings(shapes, self._mesh),
        )
        return state
