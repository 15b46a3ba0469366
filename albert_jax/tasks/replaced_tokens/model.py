"""An ALBERT that detects replaced tokens, with the generator that replaces them; no loss."""

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
from jax import Array
from jaxtyping import Float, Int

from albert_jax.config import AlbertConfig
from albert_jax.heads import MaskedLMHead
from albert_jax.layers import AnyArray, at_least_float32, dense
from albert_jax.model import (
    AlbertForPreTraining,
    AlbertForPreTrainingOutput,
    AlbertModel,
    HiddenStates,
)
from albert_jax.tasks.config import Generator
from albert_jax.tasks.replaced_tokens.heads import DetectionHead, GeneratorParts


@flax.struct.dataclass
class DetectionOutput:
    """The output of the discriminator. Logits are at least float32."""

    detection_logits: Float[Array, "batch length"]  # above 0: the token was replaced
    sop_logits: Float[Array, "batch 2"] | Float[Array, "batch pairs 2"] | None


class AlbertForReplacedTokens(AlbertForPreTraining):
    """The discriminator, an ALBERT whose encoder is kept, and its generator (ELECTRA §2).

    Both read the same embeddings. The generator is the encoder itself, all of its layers or the
    first ones, with the masked-LM head (`Generator.SHARED`), or it has its own narrower layers.

    Parameters: ``albert``, ``sop_classifier`` and ``discriminator_predictions`` are the
    discriminator's. A generator that is the whole encoder has its head at ``predictions``, like a
    masked LM. Any other generator has its head at ``generator/predictions`` and its own layers, if
    it has any, at ``generator/encoder``.

    Attributes:
        generator_kind: the generator's weights.
        generator_config: the generator's sizes, see `ObjectiveConfig.generator_config`; None: those
            of the encoder.
    """

    generator_kind: Generator = Generator.SHARED
    generator_config: AlbertConfig | None = None

    def setup(self) -> None:
        config, dtype, execution = self.config, self.dtype, self.execution
        self.albert = AlbertModel(config, dtype, execution)
        self.sop_classifier = dense(config, 2, at_least_float32(dtype))
        self.discriminator_predictions = DetectionHead(config, dtype)
        if self._is_whole:
            self.predictions = MaskedLMHead(config, dtype)
        else:
            own = self.generator_kind is Generator.OWN
            self.generator = GeneratorParts(self._sizes, dtype, execution, own)

    @property
    def _sizes(self) -> AlbertConfig:
        return self.generator_config or self.config

    @property
    def _is_whole(self) -> bool:
        """True if the generator is the discriminator's encoder with all of its layers."""
        layers = self._sizes.num_hidden_layers
        shared = self.generator_kind is Generator.SHARED
        return shared and layers == self.config.num_hidden_layers

    def __call__(
        self,
        input_ids: Int[AnyArray, "batch length"],
        attention_mask: Int[AnyArray, "batch length"] | None = None,
        token_type_ids: Int[AnyArray, "batch length"] | None = None,
        position_ids: Int[AnyArray, "#batch length"] | None = None,
        *,
        masked_lm_positions: Int[AnyArray, "batch predictions"] | None = None,
        output_hidden_states: bool = False,
        output_sop_logits: bool = True,
        **inputs: Any,
    ) -> AlbertForPreTrainingOutput:
        """Return the generator's token logits and the discriminator's sentence-order logits.

        Arguments as in `AlbertForPreTraining`; hidden states are the generator's.
        """
        inputs |= {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
        }
        logits, hidden_states = self.generate(
            **inputs,
            masked_lm_positions=masked_lm_positions,
            output_hidden_states=output_hidden_states,
        )
        sop_logits = self.discriminate(**inputs).sop_logits if output_sop_logits else None
        return AlbertForPreTrainingOutput(logits, sop_logits, hidden_states)

    def generate(
        self,
        *,
        masked_lm_positions: Int[AnyArray, "batch predictions"] | None = None,
        sentence_order_positions: Int[AnyArray, "batch pairs"] | None = None,
        **inputs: Any,
    ) -> tuple[Float[Array, "batch chosen vocabulary"], HiddenStates | None]:
        """Return the generator's masked-LM logits and, on request, its hidden states.

        Arguments as in `AlbertForPreTraining`.
        """
        outputs = self.albert(
            **inputs,
            pooled_positions=sentence_order_positions,
            chosen_positions=masked_lm_positions,
            output_pooled=False,
            encoder=self._generator_layers(),
        )
        return self.predict_tokens(outputs.last_hidden_state), outputs.hidden_states

    def discriminate(
        self,
        *,
        sentence_order_positions: Int[AnyArray, "batch pairs"] | None = None,
        output_sop_logits: bool = True,
        **inputs: Any,
    ) -> DetectionOutput:
        """Score whether each token is a replacement, and the order of sentences.

        Arguments as in `AlbertForPreTraining`.
        """
        outputs = self.albert(
            **inputs, pooled_positions=sentence_order_positions, output_pooled=output_sop_logits
        )
        pooled = outputs.pooler_output
        return DetectionOutput(
            self.discriminator_predictions(outputs.last_hidden_state),
            None if pooled is None else self.sop_classifier(pooled),
        )

    def predict_tokens(
        self, hidden: Float[Array, "batch chosen hidden"]
    ) -> Float[Array, "batch chosen vocabulary"]:
        """Compute the masked-LM head's logits for hidden states of the generator."""
        head = self.predictions if self._is_whole else self.generator.predictions
        return head(hidden, self.albert.embeddings.word_embeddings.embedding)

    def _generator_layers(self) -> Callable[..., Any]:
        if self.generator_kind is Generator.OWN:
            return self.generator.encoder
        return functools.partial(self.albert.encoder, num_layers=self._sizes.num_hidden_layers)
