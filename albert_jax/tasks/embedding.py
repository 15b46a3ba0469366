"""A text as a vector: pooled hidden states of an encoder, without additional parameters."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from etils import epath
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int, PyTree

from albert_jax.config import AlbertConfig, Pooling
from albert_jax.encoder import Execution
from albert_jax.layers import AnyArray
from albert_jax.model import AlbertModel, AlbertModelOutput, HiddenStates
from albert_jax.pretrained import PretrainedModel, directory_of
from albert_jax.tasks.embedding_files import read_vector_form

_SMALLEST_NORM = 1e-12  # vectors are divided by at least this, as in torch's `normalize`


@flax.struct.dataclass
class EmbeddingOutput:
    """The output of `AlbertForEmbedding`; hidden states have one row per text."""

    embeddings: Float[Array, "*batch hidden"]  # at least float32
    hidden_states: HiddenStates | None = None


class AlbertForEmbedding(PretrainedModel, nn.Module):
    """ALBERT with a vector for each text (Reimers and Gurevych 2019, §3).

    It has the parameters of the encoder, and those of the pooler only if it is used.
    """

    config: AlbertConfig
    pooling: Pooling = Pooling.MEAN
    normalize: bool = True  # vectors of length 1, whose products are cosines
    dtype: DTypeLike = jnp.float32
    execution: Execution = Execution()

    @classmethod
    def from_pretrained(
        cls, path: epath.PathLike, **fields: Any
    ) -> tuple["AlbertForEmbedding", PyTree]:
        """Return the model that a path holds, with the pooling that its files name, if they do.

        Args:
            path: see `PretrainedModel.from_pretrained`.
            fields: likewise; may have `pooling` and `normalize`, which override the files'.

        Raises:
            WeightsError: likewise.
            CheckpointError: likewise.
        """
        form = read_vector_form(directory_of(path))
        own = {} if form is None else form._asdict()
        return super().from_pretrained(path, **own | fields)

    def setup(self) -> None:
        pooled = self.pooling is Pooling.POOLED
        self.albert = AlbertModel(self.config, self.dtype, self.execution, add_pooling_layer=pooled)

    def __call__(
        self,
        input_ids: Int[AnyArray, "*batch length"],
        attention_mask: Int[AnyArray, "*batch length"] | None = None,
        token_type_ids: Int[AnyArray, "*batch length"] | None = None,
        *,
        deterministic: bool = True,
        output_hidden_states: bool = False,
    ) -> EmbeddingOutput:
        """Embed texts; arguments as in `AlbertModel`, or with an axis for the texts of examples."""
        mask = jnp.ones_like(input_ids) if attention_mask is None else attention_mask
        ids, mask = (x.reshape(-1, x.shape[-1]) for x in (input_ids, mask))
        if token_type_ids is not None:
            token_type_ids = token_type_ids.reshape(ids.shape)
        outputs = self.albert(
            ids,
            mask,
            token_type_ids,
            chosen_positions=self._positions_to_pool(ids),
            deterministic=deterministic,
            output_hidden_states=output_hidden_states,
        )
        vectors = self.pool(outputs, mask)
        vectors = vectors.astype(jnp.promote_types(vectors.dtype, jnp.float32))
        if self.normalize:
            squares = jnp.square(vectors).sum(axis=-1, keepdims=True)
            vectors = vectors * jax.lax.rsqrt(jnp.maximum(squares, _SMALLEST_NORM**2))
        return EmbeddingOutput(vectors.reshape(*input_ids.shape[:-1], -1), outputs.hidden_states)

    def _positions_to_pool(
        self, input_ids: Int[AnyArray, "rows length"]
    ) -> Int[AnyArray, "rows chosen"] | None:
        """Return the positions that `pool` reads of the last hidden state, or None for all."""
        if self.pooling is Pooling.MEAN:
            return None
        chosen = 1 if self.pooling is Pooling.FIRST else 0
        return jnp.zeros_like(input_ids[:, :chosen])

    def pool(
        self, outputs: AlbertModelOutput, attention_mask: Int[AnyArray, "rows length"]
    ) -> Float[Array, "rows hidden"]:
        """Return the vector of each row, not yet normalized."""
        if self.pooling is Pooling.POOLED:
            assert outputs.pooler_output is not None
            return outputs.pooler_output
        hidden = outputs.last_hidden_state
        if self.pooling is Pooling.FIRST:
            return hidden[:, 0]
        hidden = hidden.astype(jnp.promote_types(hidden.dtype, jnp.float32))
        weights = jnp.asarray(attention_mask, hidden.dtype)
        return jnp.einsum("rlh,rl->rh", hidden, weights) / weights.sum(axis=1, keepdims=True)
