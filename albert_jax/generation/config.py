"""Options of generation."""

import dataclasses
from enum import StrEnum

from albert_jax.decoder.config import Gpt2Config
from albert_jax.settings import FieldError, check_settings, setting

_LONGEST = 1 << 20


class EarlyStopping(StrEnum):
    """When beam search stops, once it has `num_beams` finished texts of a source."""

    TRUE = "true"  # at once
    # When the best unfinished text could not beat the worst finished one by ending now. A text that
    # would get better later, due to a length penalty above 0, is missed.
    FALSE = "false"
    NEVER = "never"  # when it could not at any length


@dataclasses.dataclass(frozen=True)
class GenerationOptions:
    """Options of `generate`: greedy search, sampling (`temperature`) or beam search (`num_beams`).

    Raises:
        FieldError: a value is not allowed, or options do not go together.
    """

    max_new_tokens: int = setting(
        64, "longest text, the token that ends it included", at_least=1, at_most=_LONGEST
    )
    min_new_tokens: int = setting(0, "tokens before a text may end", at_least=0, at_most=_LONGEST)
    num_beams: int = setting(1, "texts that beam search keeps; 1 for none", at_least=1, at_most=512)
    length_penalty: float = setting(
        1.0,
        "power of its length that divides a text's log probability; above 0 favors long ones",
        at_least=-10,
        at_most=10,
    )
    early_stopping: EarlyStopping = setting(EarlyStopping.FALSE, "when beam search stops")
    no_repeat_ngram_size: int = setting(
        0, "length of n-grams that no text has twice; 0 for any", at_least=0, at_most=_LONGEST
    )
    temperature: float = setting(
        0.0,
        "divisor of logits in sampling; 0 takes the most probable token",
        at_least=0,
        at_most=1e6,
    )
    top_k: int = setting(
        0, "sample from this many tokens; 0 for all", at_least=0, at_most=10_000_000
    )
    top_p: float = setting(
        1.0, "sample from the fewest tokens with this probability in sum", above=0, at_most=1
    )
    seed: int = setting(0, "seed of sampling", at_least=0, at_most=(1 << 32) - 1)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.min_new_tokens > self.max_new_tokens:
            most = f"at most max_new_tokens ({self.max_new_tokens})"
            raise FieldError("min_new_tokens", most, self.min_new_tokens)
        if self.num_beams > 1 and self.temperature > 0:
            raise FieldError("num_beams", "1 where temperature is above 0", self.num_beams)
        for name, unused in (("top_k", 0), ("top_p", 1.0)):
            if self.temperature == 0 and getattr(self, name) != unused:
                sampling = f"{unused} unless temperature is above 0"
                raise FieldError(name, sampling, getattr(self, name))

    def check(self, decoder: Gpt2Config) -> None:
        """Check that a decoder can write such texts.

        Raises:
            FieldError: it has too few positions, or too few tokens for so many beams: each step
                has twice as many candidates.
        """
        decoder.check_length("max_new_tokens", self.max_new_tokens)
        if self.num_beams > 1 and 2 * self.num_beams > decoder.vocab_size:
            most = f"at most half of vocab_size ({decoder.vocab_size})"
            raise FieldError("num_beams", most, self.num_beams)
