"""The models of other tasks: an encoder and one head each. No loss is computed here.

All take what `AlbertModel` takes (except packed rows) and return logits of at least float32. The
encoder is stored under ``albert``, and the head under ``predictions``, ``classifier``,
``qa_outputs``, or ``start_logits``, ``end_logits`` and ``answer_class``.
"""

import dataclasses
from typing import Any, Generic, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Int, Num

from albert_jax.config import AlbertConfig, HeadConfig
from albert_jax.encoder import Execution
from albert_jax.heads import Classifier, MaskedLMHead
from albert_jax.layers import AnyArray, at_least_float32, dense, gather_positions
from albert_jax.model import AlbertModel, AlbertModelOutput, HiddenStates
from albert_jax.pretrained import PretrainedModel
from albert_jax.tasks.span_head import AnswerClass, EndLogits, StartLogits, mask_and_normalize

Output = TypeVar("Output")


@flax.struct.dataclass
class MaskedLMOutput:
    """The output of `AlbertForMaskedLM`."""

    logits: Float[Array, "batch chosen vocabulary"]
    hidden_states: HiddenStates | None = None


@flax.struct.dataclass
class SequenceClassifierOutput:
    """The output of `AlbertForSequenceClassification`."""

    logits: Float[Array, "batch labels"]
    hidden_states: HiddenStates | None = None


@flax.struct.dataclass
class TokenClassifierOutput:
    """The output of `AlbertForTokenClassification`."""

    logits: Float[Array, "batch length labels"]
    hidden_states: HiddenStates | None = None


@flax.struct.dataclass
class QuestionAnsweringOutput:
    """The output of `AlbertForQuestionAnswering`."""

    start_logits: Float[Array, "batch length"]
    end_logits: Float[Array, "batch length"]
    hidden_states: HiddenStates | None = None


@flax.struct.dataclass
class MultipleChoiceOutput:
    """The output of `AlbertForMultipleChoice`; hidden states have one row per choice."""

    logits: Float[Array, "batch choices"]
    hidden_states: tuple[Float[Array, "rows length hidden"], ...] | None = None


@flax.struct.dataclass
class ConditionalSpanOutput:
    """The output of `AlbertForConditionalSpan`.

    Given the true starts, log-probabilities are over all positions and there are no indices.
    Otherwise they are those of the most probable starts, and of the most probable ends for each of
    these, best first.
    """

    start_log_probs: Float[Array, "batch starts"]
    end_log_probs: Float[Array, "batch ends"] | Float[Array, "batch starts ends"]
    answer_logits: Float[Array, " batch"]  # high if the question has no answer
    start_indices: Int[Array, "batch starts"] | None = None
    end_indices: Int[Array, "batch starts ends"] | None = None
    hidden_states: HiddenStates | None = None


class EncoderWithHead(PretrainedModel, nn.Module, Generic[Output]):
    """The common forward pass. A subclass sets up an `AlbertModel` called ``albert``."""

    def __call__(
        self,
        input_ids: Int[AnyArray, "batch length"],
        attention_mask: Int[AnyArray, "batch length"] | None = None,
        token_type_ids: Int[AnyArray, "batch length"] | None = None,
        position_ids: Int[AnyArray, "#batch length"] | None = None,
        *,
        deterministic: bool = True,
        output_hidden_states: bool = False,
        **inputs: Any,
    ) -> Output:
        """Encode rows and apply the head; arguments as in `AlbertModel`, and those of `score`."""
        outputs = self.albert(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            chosen_positions=self.positions_to_score(input_ids, **inputs),
            deterministic=deterministic,
            output_hidden_states=output_hidden_states,
        )
        return self.score(outputs, deterministic=deterministic, **inputs)

    def positions_to_score(
        self, input_ids: Int[AnyArray, "batch length"], **inputs: Any
    ) -> Int[AnyArray, "batch chosen"] | None:
        """Return the positions whose last hidden state `score` reads, or None for all.

        Args:
            input_ids: ids of the tokens.
            inputs: further arguments of `score`.
        """
        del input_ids, inputs
        return None

    def score(self, *args: Any, **inputs: Any) -> Output:
        """Apply the head: ``(outputs of the encoder, *, deterministic, ...) -> output``."""
        raise NotImplementedError


class EncoderWithPooledHead(EncoderWithHead[Output]):
    """A model whose head reads only the pooled first token."""

    def positions_to_score(
        self, input_ids: Int[AnyArray, "batch length"], **inputs: Any
    ) -> Int[AnyArray, "batch chosen"]:
        del inputs
        return input_ids[:, :0]


class AlbertForMaskedLM(EncoderWithHead[MaskedLMOutput]):
    """ALBERT with the masked-LM head."""

    config: AlbertConfig
    dtype: DTypeLike = jnp.float32
    execution: Execution = Execution()

    def setup(self) -> None:
        self.albert = AlbertModel(self.config, self.dtype, self.execution, add_pooling_layer=False)
        self.predictions = MaskedLMHead(self.config, self.dtype)

    def positions_to_score(
        self, input_ids: Int[AnyArray, "batch length"], **inputs: Any
    ) -> Int[AnyArray, "batch chosen"] | None:
        del input_ids
        return inputs.get("masked_lm_positions")

    def score(
        self,
        outputs: AlbertModelOutput,
        *,
        deterministic: bool,
        masked_lm_positions: Int[AnyArray, "batch predictions"] | None = None,
    ) -> MaskedLMOutput:
        """Score every token of the vocabulary at `masked_lm_positions`, by default at all."""
        del deterministic, masked_lm_positions  # the encoder's output has only these positions
        word_table = self.albert.embeddings.word_embeddings.embedding
        logits = self.predictions(outputs.last_hidden_state, word_table)
        return MaskedLMOutput(logits, outputs.hidden_states)


class AlbertForSequenceClassification(EncoderWithPooledHead[SequenceClassifierOutput]):
    """ALBERT with a classifier on the pooled first token: a class, several labels, or a number."""

    config: AlbertConfig
    head: HeadConfig = HeadConfig()
    dtype: DTypeLike = jnp.float32
    execution: Execution = Execution()

    def setup(self) -> None:
        self.albert = AlbertModel(self.config, self.dtype, self.execution)
        labels, dropout = self.head.num_labels, self.head.classifier_dropout_prob
        self.classifier = Classifier(self.config, labels, dropout, self.dtype)

    def score(self, outputs: AlbertModelOutput, *, deterministic: bool) -> SequenceClassifierOutput:
        """Score the labels of each row."""
        assert outputs.pooler_output is not None
        logits = self.classifier(outputs.pooler_output, deterministic=deterministic)
        return SequenceClassifierOutput(logits, outputs.hidden_states)


class AlbertForTokenClassification(EncoderWithHead[TokenClassifierOutput]):
    """ALBERT with a classifier on every token."""

    config: AlbertConfig
    head: HeadConfig = HeadConfig()
    dtype: DTypeLike = jnp.float32
    execution: Execution = Execution()

    def setup(self) -> None:
        self.albert = AlbertModel(self.config, self.dtype, self.execution, add_pooling_layer=False)
        labels, dropout = self.head.num_labels, self.head.classifier_dropout_prob
        self.classifier = Classifier(self.config, labels, dropout, self.dtype)

    def score(self, outputs: AlbertModelOutput, *, deterministic: bool) -> TokenClassifierOutput:
        """Score the labels of each token."""
        logits = self.classifier(outputs.last_hidden_state, deterministic=deterministic)
        return TokenClassifierOutput(logits, outputs.hidden_states)


class AlbertForQuestionAnswering(EncoderWithHead[QuestionAnsweringOutput]):
    """ALBERT with scores for every token to be an answer's first and to be its last."""

    config: AlbertConfig
    dtype: DTypeLike = jnp.float32
    execution: Execution = Execution()

    def setup(self) -> None:
        self.albert = AlbertModel(self.config, self.dtype, self.execution, add_pooling_layer=False)
        self.qa_outputs = dense(self.config, 2, at_least_float32(self.dtype))

    def score(self, outputs: AlbertModelOutput, *, deterministic: bool) -> QuestionAnsweringOutput:
        """Score the first and last tokens of answers."""
        logits = self.qa_outputs(outputs.last_hidden_state)
        return QuestionAnsweringOutput(logits[..., 0], logits[..., 1], outputs.hidden_states)


class AlbertForMultipleChoice(EncoderWithPooledHead[MultipleChoiceOutput]):
    """ALBERT with a score for each of several rows, one of which is right (RACE)."""

    config: AlbertConfig
    head: HeadConfig = HeadConfig()  # its labels do not matter here: a row has one score
    dtype: DTypeLike = jnp.float32
    execution: Execution = Execution()

    def setup(self) -> None:
        self.albert = AlbertModel(self.config, self.dtype, self.execution)
        dropout = self.head.classifier_dropout_prob
        self.classifier = Classifier(self.config, 1, dropout, self.dtype)

    def smallest_inputs(self) -> dict[str, Any]:
        return {"input_ids": np.zeros((1, 1, 1), np.int32)}

    def __call__(
        self,
        input_ids: Int[AnyArray, "batch choices length"],
        attention_mask: Int[AnyArray, "batch choices length"] | None = None,
        token_type_ids: Int[AnyArray, "batch choices length"] | None = None,
        position_ids: Int[AnyArray, "batch choices length"] | None = None,
        **options: Any,
    ) -> MultipleChoiceOutput:
        """Score each choice; arguments as in `AlbertModel`, with one more axis."""
        inputs = (input_ids, attention_mask, token_type_ids, position_ids)
        rows: Any = (None if x is None else x.reshape(-1, x.shape[-1]) for x in inputs)
        outputs = super().__call__(*rows, **options)
        return dataclasses.replace(outputs, logits=outputs.logits.reshape(input_ids.shape[:2]))

    def score(self, outputs: AlbertModelOutput, *, deterministic: bool) -> MultipleChoiceOutput:
        """Score each row, which is one choice."""
        assert outputs.pooler_output is not None
        logits = self.classifier(outputs.pooler_output, deterministic=deterministic)
        return MultipleChoiceOutput(logits, outputs.hidden_states)


class AlbertForConditionalSpan(EncoderWithHead[ConditionalSpanOutput]):
    """ALBERT for questions that may have no answer: an answer's end depends on its start.

    This is the head that the released code has for SQuAD 2.0, under its names.
    """

    config: AlbertConfig
    head: HeadConfig = HeadConfig()  # only its dropout is used, before the answerability score
    dtype: DTypeLike = jnp.float32
    execution: Execution = Execution()
    start_n_top: int = 5  # starts in the beam
    end_n_top: int = 5  # ends for each of them

    def setup(self) -> None:
        self.albert = AlbertModel(self.config, self.dtype, self.execution, add_pooling_layer=False)
        self.start_logits = StartLogits(self.config, self.dtype)
        self.end_logits = EndLogits(self.config, self.dtype)
        self.answer_class = AnswerClass(self.config, self.head.classifier_dropout_prob, self.dtype)

    def smallest_inputs(self) -> dict[str, Any]:
        return {name: np.zeros((1, 1), np.int32) for name in ("input_ids", "p_mask")}

    def score(
        self,
        outputs: AlbertModelOutput,
        *,
        deterministic: bool,
        p_mask: Num[AnyArray, "batch length"] | Bool[AnyArray, "batch length"],
        start_positions: Int[AnyArray, " batch"] | None = None,
    ) -> ConditionalSpanOutput:
        """Score spans and answerability.

        Args:
            outputs: the encoder's output.
            deterministic: no dropout.
            p_mask: 1 where no answer may start or end, 0 at [CLS] and in the document.
            start_positions: where answers start, in training; None for a beam search.
        """
        hidden = outputs.last_hidden_state
        masked = jnp.asarray(p_mask, bool)
        starts = mask_and_normalize(self.start_logits(hidden), masked)
        expected = jnp.einsum("bs,bsh->bh", jnp.exp(starts).astype(hidden.dtype), hidden)
        answer = self.answer_class(expected, hidden[:, 0], deterministic=deterministic)
        if start_positions is not None:
            ends = self.end_logits(hidden, gather_positions(hidden, start_positions[:, None]))
            ends = mask_and_normalize(ends[:, 0], masked)
            return ConditionalSpanOutput(starts, ends, answer, hidden_states=outputs.hidden_states)
        starts, start_indices = _best(starts, self.start_n_top)
        ends = self.end_logits(hidden, gather_positions(hidden, start_indices))
        ends, end_indices = _best(mask_and_normalize(ends, masked[:, None]), self.end_n_top)
        return ConditionalSpanOutput(
            starts, ends, answer, start_indices, end_indices, outputs.hidden_states
        )


def _best(
    log_probs: Float[Array, "*batch length"], count: int
) -> tuple[Float[Array, "*batch best"], Int[Array, "*batch best"]]:
    """Return the highest values of each row and their positions; fewer if the row is shorter."""
    values, indices = jax.lax.top_k(log_probs, min(count, log_probs.shape[-1]))
    return values, indices
