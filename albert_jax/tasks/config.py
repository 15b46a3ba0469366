"""Configuration of the pre-training objective, and the generator that follows from it."""

import dataclasses
from enum import StrEnum

from albert_jax.config import AlbertConfig
from albert_jax.settings import FieldError, check_settings, setting


class TokenLoss(StrEnum):
    """What is learned about single tokens, in addition to the order of sentences."""

    MASKED_LM = "masked_lm"  # the paper's
    # A generator learns masked LM. A discriminator, which is the model that is kept, learns which
    # tokens are the generator's samples (ELECTRA, Clark et al. 2020).
    REPLACED_TOKENS = "replaced_tokens"


class Generator(StrEnum):
    """Weights of the generator of replaced tokens, except the embeddings, which are shared."""

    SHARED = "shared"  # the discriminator's layers, with the masked-LM head
    OWN = "own"  # layers of its own, narrower


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """What a model is pre-trained for, except the sentence objective, which the data determines.

    Raises:
        FieldError: a value is not allowed.
    """

    token_loss: TokenLoss = setting(
        TokenLoss.MASKED_LM, "loss on tokens: masked LM, or ELECTRA's replaced-token detection"
    )
    generator: Generator = setting(
        Generator.SHARED,
        "weights of the generator of replaced_tokens: the discriminator's, or layers of its own",
    )
    generator_layers: int | None = setting(
        None, "layers that the generator applies; none: as many as the discriminator", at_least=1
    )
    generator_width: float = setting(
        0.25,
        "attention heads of a generator of its own as a fraction of model.num_attention_heads; "
        "hidden and intermediate size in proportion",
        above=0,
        at_most=1,
    )
    detection_weight: float = setting(
        50.0, "weight of the detection of replaced tokens beside masked LM", above=0
    )

    def __post_init__(self) -> None:
        check_settings(self)

    def generator_config(self, model: AlbertConfig) -> AlbertConfig | None:
        """Return the configuration of a discriminator's generator; None for masked LM alone.

        A narrower generator has fewer heads of the same width, so that both use the same attention.
        Example: base (12 heads, 768, 3072) at 0.25 has 3 heads, 192 and 768.

        Raises:
            FieldError: the generator has more layers than the discriminator.
        """
        if self.token_loss is TokenLoss.MASKED_LM:
            return None
        layers = self.generator_layers or model.num_hidden_layers
        if layers > model.num_hidden_layers:
            most = f"at most model.num_hidden_layers ({model.num_hidden_layers})"
            raise FieldError("generator_layers", most, layers)
        if self.generator is Generator.SHARED:
            groups = min(model.num_hidden_groups, layers)
            return dataclasses.replace(model, num_hidden_layers=layers, num_hidden_groups=groups)
        heads = max(1, round(self.generator_width * model.num_attention_heads))
        hidden = heads * (model.hidden_size // model.num_attention_heads)
        return dataclasses.replace(
            model,
            num_hidden_layers=layers,
            num_hidden_groups=min(model.num_hidden_groups, layers),
            num_attention_heads=heads,
            hidden_size=hidden,
            intermediate_size=max(1, round(model.intermediate_size * hidden / model.hidden_size)),
        )
