"""Configuration of distillation."""

import dataclasses

from albert_jax.settings import check_settings, setting


@dataclasses.dataclass(frozen=True)
class DistillationConfig:
    """Distillation from the masked-LM predictions of another model with the same vocabulary.

    Raises:
        FieldError: a value is not allowed.
    """

    teacher: str = setting(
        "",
        "any ALBERT, as from_pretrained reads it, or a recording of experiments.distillation; "
        "empty: no distillation",
    )
    top_k: int = setting(
        64, "tokens of the teacher at each slot; the others are one outcome", at_least=1
    )
    temperature: float = setting(
        1.0, "divides the logits of both; the loss is multiplied by its square", above=0
    )
    weight: float = setting(1.0, "weight of the loss beside that of the true tokens", at_least=0)

    def __post_init__(self) -> None:
        check_settings(self)

    def describe(self) -> str:
        """Describe what is taught. Example: ``top 64 tokens at temperature 1, weight 0.5``."""
        return (
            f"top {self.top_k} tokens at temperature {self.temperature:g}, weight {self.weight:g}"
        )
