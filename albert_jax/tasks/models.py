"""The models of other tasks: an encoder and one head each. No loss is computed here.

All take what `AlbertModel` takes (but packed rows) and give logits of at least float32. The encoder
lies under ``albert``, the head under ``predictions``, ``classifier`` or ``qa_outputs``.
"""

from typing import Any, cast

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
from albert_jax.heads import Classifier, MaskedLMHead, gather_positions
from albert_jax.layers import AnyArray, at_least_float32, dense
from albert_jax.model import AlbertModel, HiddenStates
from albert_jax.pretrained import PretrainedModel
from albert_jax.tasks.span_head import AnswerClass, EndLogits, StartLogits, mask_and_normalize


@flax.struct.dataclass
class MaskedLMOutput:
    """What `AlbertForMaskedLM` computes."""

    logits: Float[Array, "batch chosen vocabulary"]
    hidden_states: HiddenStates | None = None


@flax.struct.dataclass
class SequenceClassifierOutput:
    """What `AlbertForSequenceClassification` computes."""

    logits: Float[Array, "batch labels"]
    hidden_states: HiddenStates | None = None


@flax.struct.dataclass
class TokenClassifierOutput:
    """What `AlbertForTokenClassification` computes."""

    logits: Float[Array, "batch length labels"]
    hidden_states: HiddenStates | None = None


@flax.struct.dataclass
class QuestionAnsweringOutput:
    """What `AlbertForQuestionAnswering` computes."""

    start_logits: Float[Array, "batch length"]
    end_logits: Float[Array, "batch length"]
    hidden_states: HiddenStates | None = None


@flax.struct.dataclass
class MultipleChoiceOutput:
    """What `AlbertForMultipleChoice` computes; a choice of an example is a row."""

    logits: Float[Array, "batch choices"]
    hidden_states: tuple[Float[Array, "rows length hidden"], ...] | None = None


@flax.struct.dataclass
class ConditionalSpanOutput:
    """What `AlbertForConditionalSpan` computes.

    Given gold starts, log-probabilities are over all positions and there are no indices. Otherwise
    they are those of the likeliest starts, and of the likeliest ends for each of these, best first.
    """

    start_log_probs: Float[Array, "batch starts"]
    end_log_probs: Float[Array, "batch ends"] | Float[Array, "batch starts ends"]
    answer_logits: Float[Array, " batch"]  # high where the question has no answer
    start_indices: Int[Array, "batch starts"] | None = None
    end_indices: Int[Array, "batch starts ends"] | None = None
    hidden_states: HiddenStates | None = None


class AlbertForMaskedLM(PretrainedModel, nn.Module):
    """ALBERT with the masked-LM head."""

    config: AlbertConfig
    dtype: DTypeLike = jnp.float32
    execution: Execution = Execution()

    def setup(self) -> None:
        self.albert = AlbertModel(self.config, self.dtype, self.execution, add_pooling_layer=False)
        self.predictions = MaskedLMHead(self.config, self.dtype)

    def __call__(
        self,
        input_ids: Int[AnyArray, "batch length"],
        attention_mask: Int[AnyArray, "batch length"] | None = None,
        token_type_ids: Int[AnyArray, "batch length"] | None = None,
        position_ids: Int[AnyArray, "#batch length"] | None = None,
        *,
        masked_lm_positions: Int[AnyArray, "batch predictions"] | None = None,
        deterministic: bool = True,
        output_hidden_states: bool = False,
    ) -> MaskedLMOutput:
        """Scores every piece of the vocabulary at `masked_lm_positions`, by default at all."""
        outputs = self.albert(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            deterministic=deterministic,
            output_hidden_states=output_hidden_states,
        )
        hidden = outputs.last_hidden_state
        if masked_lm_positions is not None:
            hidden = gather_positions(hidden, masked_lm_positions)
        word_table = self.albert.embeddings.word_embeddings.embedding
        return MaskedLMOutput(self.predictions(hidden, word_table), outputs.hidden_states)


class AlbertForSequenceClassification(PretrainedModel, nn.Module):
    """ALBERT with a classifier on the pooled first piece: classes, several classes, a number."""

    config: AlbertConfig
    head: HeadConfig = HeadConfig()
    dtype: DTypeLike = jnp.float32
    execution: Execution = Execution()

    def setup(self) -> None:
        self.albert = AlbertModel(self.config, self.dtype, self.execution)
        labels, dropout = self.head.num_labels, self.head.classifier_dropout_prob
        self.classifier = Classifier(self.config, labels, dropout, self.dtype)

    def __call__(
        self,
        input_ids: Int[AnyArray, "batch length"],
        attention_mask: Int[AnyArray, "batch length"] | None = None,
        token_type_ids: Int[AnyArray, "batch length"] | None = None,
        position_ids: Int[AnyArray, "#batch length"] | None = None,
        *,
        deterministic: bool = True,
        output_hidden_states: bool = False,
    ) -> SequenceClassifierOutput:
        """Scores the labels of each row; arguments as in `AlbertModel`."""
        outputs = self.albert(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            deterministic=deterministic,
            output_hidden_states=output_hidden_states,
        )
        pooled = cast(Array, outputs.pooler_output)  # there is a pooler
        logits = self.classifier(pooled, deterministic=deterministic)
        return SequenceClassifierOutput(logits, outputs.hidden_states)


class AlbertForTokenClassification(PretrainedModel, nn.Module):
    """ALBERT with a classifier on every piece."""

    config: AlbertConfig
    head: HeadConfig = HeadConfig()
    dtype: DTypeLike = jnp.float32
    execution: Execution = Execution()

    def setup(self) -> None:
        self.albert = AlbertModel(self.config, self.dtype, self.execution, add_pooling_layer=False)
        labels, dropout = self.head.num_labels, self.head.classifier_dropout_prob
        self.classifier = Classifier(self.config, labels, dropout, self.dtype)

    def __call__(
        self,
        input_ids: Int[AnyArray, "batch length"],
        attention_mask: Int[AnyArray, "batch length"] | None = None,
        token_type_ids: Int[AnyArray, "batch length"] | None = None,
        position_ids: Int[AnyArray, "#batch length"] | None = None,
        *,
        deterministic: bool = True,
        output_hidden_states: bool = False,
    ) -> TokenClassifierOutput:
        """Scores the labels of each piece; arguments as in `AlbertModel`."""
        outputs = self.albert(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            deterministic=deterministic,
            output_hidden_states=output_hidden_states,
        )
        logits = self.classifier(outputs.last_hidden_state, deterministic=deterministic)
        return TokenClassifierOutput(logits, outputs.hidden_states)


class AlbertForQuestionAnswering(PretrainedModel, nn.Module):
    """ALBERT with a score for every piece to be an answer's first, and one to be its last."""

    config: AlbertConfig
    dtype: DTypeLike = jnp.float32
    execution: Execution = Execution()

    def setup(self) -> None:
        self.albert = AlbertModel(self.config, self.dtype, self.execution, add_pooling_layer=False)
        self.qa_outputs = dense(self.config, 2, at_least_float32(self.dtype))

    def __call__(
        self,
        input_ids: Int[AnyArray, "batch length"],
        attention_mask: Int[AnyArray, "batch length"] | None = None,
        token_type_ids: Int[AnyArray, "batch length"] | None = None,
        position_ids: Int[AnyArray, "#batch length"] | None = None,
        *,
        deterministic: bool = True,
        output_hidden_states: bool = False,
    ) -> QuestionAnsweringOutput:
        """Scores answers' first and last pieces; arguments as in `AlbertModel`."""
        outputs = self.albert(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            deterministic=deterministic,
            output_hidden_states=output_hidden_states,
        )
        logits = self.qa_outputs(outputs.last_hidden_state)
        return QuestionAnsweringOutput(logits[..., 0], logits[..., 1], outputs.hidden_states)


class AlbertForMultipleChoice(PretrainedModel, nn.Module):
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
        *,
        deterministic: bool = True,
        output_hidden_states: bool = False,
    ) -> MultipleChoiceOutput:
        """Scores each choice; arguments as in `AlbertModel`, with an axis more."""

        def rows(x: AnyArray | None) -> AnyArray | None:
            return None if x is None else x.reshape(-1, x.shape[-1])

        outputs = self.albert(
            input_ids.reshape(-1, input_ids.shape[-1]),
            rows(attention_mask),
            rows(token_type_ids),
            rows(position_ids),
            deterministic=deterministic,
            output_hidden_states=output_hidden_states,
        )
        pooled = cast(Array, outputs.pooler_output)  # there is a pooler
        logits = self.classifier(pooled, deterministic=deterministic)
        return MultipleChoiceOutput(logits.reshape(input_ids.shape[:2]), outputs.hidden_states)


class AlbertForConditionalSpan(PretrainedModel, nn.Module):
    """ALBERT for questions that may have no answer: an answer's end depends on its start.

    This is the head that the released code has for SQuAD 2.0, under its names.
    """

    config: AlbertConfig
    head: HeadConfig = HeadConfig()  # its dropout alone is read, before the answerability score
    dtype: DTypeLike = jnp.float32
    execution: Execution = Execution()
    start_n_top: int = 5  # starts that ends are looked for
    end_n_top: int = 5  # ends for each of them

    def setup(self) -> None:
        self.albert = AlbertModel(self.config, self.dtype, self.execution, add_pooling_layer=False)
        self.start_logits = StartLogits(self.config, self.dtype)
        self.end_logits = EndLogits(self.config, self.dtype)
        self.answer_class = AnswerClass(self.config, self.head.classifier_dropout_prob, self.dtype)

    def smallest_inputs(self) -> dict[str, Any]:
        return {name: np.zeros((1, 1), np.int32) for name in ("input_ids", "p_mask")}

    def __call__(
        self,
        input_ids: Int[AnyArray, "batch length"],
        attention_mask: Int[AnyArray, "batch length"] | None = None,
        token_type_ids: Int[AnyArray, "batch length"] | None = None,
        position_ids: Int[AnyArray, "#batch length"] | None = None,
        *,
        p_mask: Num[AnyArray, "batch length"] | Bool[AnyArray, "batch length"],
        start_positions: Int[AnyArray, " batch"] | None = None,
        deterministic: bool = True,
        output_hidden_states: bool = False,
    ) -> ConditionalSpanOutput:
        """Scores spans and answerability; other arguments as in `AlbertModel`.

        Args:
            input_ids: ids of the pieces.
            attention_mask: see `AlbertModel`.
            token_type_ids: see `AlbertModel`.
            position_ids: see `AlbertModel`.
            p_mask: 1 where no answer may start or end, 0 at [CLS] and in the document.
            start_positions: where answers start, in training; None searches.
            deterministic: no dropout.
            output_hidden_states: return every layer's output too.
        """
        outputs = self.albert(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            deterministic=deterministic,
            output_hidden_states=output_hidden_states,
        )
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
    """The highest of a row and where they are; fewer where the row is shorter."""
    values, indices = jax.lax.top_k(log_probs, min(count, log_probs.shape[-1]))
    return values, indices
