"""The embeddings, the encoder with its pooler, and the pre-training model; no loss."""

from collections.abc import Callable
from typing import ClassVar

import flax.struct
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from albert_jax.attention.cudnn_slots import slots_suffice
from albert_jax.attention.dispatch import make_attention_fn
from albert_jax.attention.mask import AttentionMask
from albert_jax.config import AlbertConfig
from albert_jax.encoder import AlbertEncoder, Execution
from albert_jax.heads import MaskedLMHead, Pooler
from albert_jax.layers import (
    AnyArray,
    at_least_float32,
    dense,
    embedding_table,
    gather_positions,
    normalization,
)
from albert_jax.positions import position_encoder
from albert_jax.pretrained import PretrainedModel

HiddenStates = tuple[Float[Array, "batch length hidden"], ...]


@flax.struct.dataclass
class AlbertModelOutput:
    """The output of `AlbertModel`."""

    last_hidden_state: Float[Array, "batch chosen hidden"]  # of all positions or of chosen ones
    pooler_output: Float[Array, "batch hidden"] | Float[Array, "batch pairs hidden"] | None
    hidden_states: HiddenStates | None = None  # the input of the layers, then each layer's output


@flax.struct.dataclass
class AlbertForPreTrainingOutput:
    """The output of `AlbertForPreTraining`. Logits are at least float32."""

    prediction_logits: Float[Array, "batch chosen vocabulary"]
    sop_logits: Float[Array, "batch 2"] | Float[Array, "batch pairs 2"] | None
    hidden_states: HiddenStates | None = None


class AlbertEmbeddings(nn.Module):
    """Sum of word, token-type and position embeddings at width E, not H (ALBERT §3.1), then layer
    norm and dropout.

    The padding token is an ordinary row of the word table. The sum is taken in at least float32.
    """

    config: AlbertConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        config, dtype = self.config, at_least_float32(self.dtype)
        self.word_embeddings = embedding_table(config, config.vocab_size, dtype)
        self.token_type_embeddings = embedding_table(config, config.type_vocab_size, dtype)
        self.layer_norm = normalization(config, self.dtype)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    @nn.compact
    def __call__(
        self,
        input_ids: Int[AnyArray, "batch length"],
        token_type_ids: Int[AnyArray, "batch length"],
        position_ids: Int[AnyArray, "#batch length"],
        *,
        deterministic: bool,
    ) -> Float[Array, "batch length embedding"]:
        embedded = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids)
        embedded = position_encoder(self.config).embed(embedded, position_ids)
        return self.dropout(self.layer_norm(embedded), deterministic=deterministic)


class AlbertModel(PretrainedModel, nn.Module):
    """The encoder with its pooler.

    Parameters are float32; activations and matrix products are computed in `dtype`. Without
    `add_pooling_layer` there is neither the pooler nor its output.
    """

    config: AlbertConfig
    dtype: DTypeLike = jnp.float32
    execution: Execution = Execution()
    add_pooling_layer: bool = True

    PREFIX: ClassVar[str] = "albert/"

    def setup(self) -> None:
        self.embeddings = AlbertEmbeddings(self.config, self.dtype)
        self.encoder = AlbertEncoder(self.config, self.dtype, self.execution)
        self.pooler = Pooler(self.config, self.dtype) if self.add_pooling_layer else None

    def __call__(
        self,
        input_ids: Int[AnyArray, "batch length"],
        attention_mask: Int[AnyArray, "batch length"] | None = None,
        token_type_ids: Int[AnyArray, "batch length"] | None = None,
        position_ids: Int[AnyArray, "#batch length"] | None = None,
        *,
        sequence_ids: Int[AnyArray, "batch length"] | None = None,
        pooled_positions: Int[AnyArray, "batch pairs"] | None = None,
        chosen_positions: Int[AnyArray, "batch chosen"] | None = None,
        deterministic: bool = True,
        output_hidden_states: bool = False,
        output_pooled: bool = True,
        encoder: Callable[..., tuple[Array, HiddenStates | None]] | None = None,
    ) -> AlbertModelOutput:
        """Encode rows of tokens.

        Args:
            input_ids: ids of the tokens.
            attention_mask: 1 for a real token, 0 for padding; by default all are real.
            token_type_ids: 0 for the first segment, 1 for the second; by default all 0.
            position_ids: by default 0, 1, 2, ... along the row. Only absolute position encodings
                use them: the others use distances along the row.
            sequence_ids: for packed rows, instead of `attention_mask`: the number of the sequence
                that a token belongs to, or 0 for padding. Attention stays inside each sequence.
                Needs `position_ids` that restart in each sequence.
            pooled_positions: positions at which the sequences of a row start. By default a row has
                one, at 0, and `pooler_output` has no axis for sequences.
            chosen_positions: positions to return in `last_hidden_state`, in this order; the last
                layer may skip the others. By default all are returned. ``[batch, 0]`` returns
                none, for callers that need the pooler's output only.
            deterministic: no dropout. Otherwise ``rngs={"dropout": key}`` is needed.
            output_hidden_states: return every layer's output too.
            output_pooled: apply the pooler, if there is one.
            encoder: layers to use instead of the model's own, with the same embeddings and
                attention; called like an `AlbertEncoder`.

        Raises:
            ValueError: the row is longer than the position table, both masks are given, or packed
                rows come without positions.
        """
        if position_ids is None:
            length, limit = input_ids.shape[-1], self.config.longest_row
            if limit is not None and length > limit:
                raise ValueError(
                    f"input_ids have length {length}, max_position_embeddings is {limit}"
                )
            if limit is not None and sequence_ids is not None:
                raise ValueError("sequence_ids need position_ids that restart in each sequence")
            position_ids = jnp.arange(length)[None]
        if token_type_ids is None:
            token_type_ids = jnp.zeros_like(input_ids)
        if sequence_ids is not None and attention_mask is not None:
            raise ValueError("give attention_mask or sequence_ids, not both")
        max_sequences = None if pooled_positions is None else pooled_positions.shape[1]
        slots = None if sequence_ids is None else self.execution.sequence_slots
        mask = AttentionMask(attention_mask, sequence_ids, max_sequences, slots)
        attend = make_attention_fn(self.execution.attention, mask)
        local_attend = None
        if (reach := self.config.attention_reach) is not None:
            local_mask = mask._replace(reach=reach)
            local_attend = make_attention_fn(self.execution.attention, local_mask)

        embedded = self.embeddings(
            input_ids, token_type_ids, position_ids, deterministic=deterministic
        )
        if sequence_ids is not None and slots is not None:
            # A sequence without a slot would read uninitialized memory: make the loss NaN instead.
            enough = slots_suffice(jnp.asarray(sequence_ids), slots)
            embedded = jnp.where(enough, embedded, jnp.nan)
        pooler = self.pooler if output_pooled else None
        starts = jnp.zeros_like(input_ids[:, :1]) if pooled_positions is None else pooled_positions
        read = chosen_positions
        if pooler is not None and chosen_positions is not None:
            read = jnp.concatenate([chosen_positions, starts], axis=1)
        hidden, hidden_states = (encoder or self.encoder)(
            embedded,
            attend,
            local_attend=local_attend,
            deterministic=deterministic,
            output_hidden_states=output_hidden_states,
            chosen_positions=read,
        )
        if pooler is None:
            return AlbertModelOutput(hidden, None, hidden_states)
        if chosen_positions is not None:
            hidden, first = jnp.split(hidden, [chosen_positions.shape[1]], axis=1)
        elif pooled_positions is not None:
            first = gather_positions(hidden, starts)
        else:
            first = hidden[:, :1]
        pooled = pooler(first[:, 0] if pooled_positions is None else first)
        return AlbertModelOutput(hidden, pooled, hidden_states)


class AlbertForPreTraining(PretrainedModel, nn.Module):
    """ALBERT with the heads of both pre-training objectives (ALBERT §3.1)."""

    config: AlbertConfig
    dtype: DTypeLike = jnp.float32
    execution: Execution = Execution()

    def setup(self) -> None:
        self.albert = AlbertModel(self.config, self.dtype, self.execution)
        self.predictions = MaskedLMHead(self.config, self.dtype)
        self.sop_classifier = dense(self.config, 2, at_least_float32(self.dtype))

    def __call__(
        self,
        input_ids: Int[AnyArray, "batch length"],
        attention_mask: Int[AnyArray, "batch length"] | None = None,
        token_type_ids: Int[AnyArray, "batch length"] | None = None,
        position_ids: Int[AnyArray, "#batch length"] | None = None,
        *,
        masked_lm_positions: Int[AnyArray, "batch predictions"] | None = None,
        sequence_ids: Int[AnyArray, "batch length"] | None = None,
        sentence_order_positions: Int[AnyArray, "batch pairs"] | None = None,
        deterministic: bool = True,
        output_hidden_states: bool = False,
        output_sop_logits: bool = True,
    ) -> AlbertForPreTrainingOutput:
        """Score masked tokens and the order of sentences; arguments as in `AlbertModel`.

        Args:
            input_ids: ids of the tokens.
            attention_mask: see `AlbertModel`.
            token_type_ids: see `AlbertModel`.
            position_ids: see `AlbertModel`.
            masked_lm_positions: positions to predict; by default all. The logits of all positions
                at once are large: 4 · length · vocabulary bytes per row.
            sequence_ids: see `AlbertModel`.
            sentence_order_positions: positions at which the pairs of a packed row start; the order
                logits are then ``[batch, pairs, 2]`` instead of ``[batch, 2]``.
            deterministic: no dropout.
            output_hidden_states: return every layer's output too.
            output_sop_logits: apply the pooler and the sentence head.
        """
        outputs = self.albert(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            sequence_ids=sequence_ids,
            pooled_positions=sentence_order_positions,
            chosen_positions=masked_lm_positions,
            deterministic=deterministic,
            output_hidden_states=output_hidden_states,
            output_pooled=output_sop_logits,
        )
        pooled = outputs.pooler_output
        return AlbertForPreTrainingOutput(
            prediction_logits=self.predict_tokens(outputs.last_hidden_state),
            sop_logits=None if pooled is None else self.sop_classifier(pooled),
            hidden_states=outputs.hidden_states,
        )

    def predict_tokens(
        self, hidden: Float[Array, "batch chosen hidden"]
    ) -> Float[Array, "batch chosen vocabulary"]:
        """Compute the masked-LM head's logits for the hidden states of any layer."""
        return self.predictions(hidden, self.albert.embeddings.word_embeddings.embedding)
