"""Examples of code in a model card: loading in transformers and here."""

from collections.abc import Iterator
from typing import NamedTuple


class Usage(NamedTuple):
    """How models of a class are used.

    Attributes:
        pipeline: the hub's name of the task; None if it has none.
        auto_class: transformers' class that loads them.
        flags: of `experiments.predict`.
    """

    pipeline: str | None
    auto_class: str
    flags: str


_TEXT = '--text="This is a text."'
_MASK = '--text="Paris is the [MASK] of France."'
_QUESTION = '--question="When?" --context="It was in 1066."'
USAGES = {
    "AlbertModel": Usage(
        "feature-extraction", "AutoModel", f"--task=encode --pooling=mean {_TEXT}"
    ),
    "AlbertForPreTraining": Usage(
        "fill-mask", "AutoModelForPreTraining", f"--task=fill-mask {_MASK}"
    ),
    "AlbertForMaskedLM": Usage("fill-mask", "AutoModelForMaskedLM", f"--task=fill-mask {_MASK}"),
    "AlbertForSequenceClassification": Usage(
        "text-classification", "AutoModelForSequenceClassification", f"--task=classify {_TEXT}"
    ),
    "AlbertForTokenClassification": Usage(
        "token-classification", "AutoModelForTokenClassification", f"--task=tag {_TEXT}"
    ),
    "AlbertForQuestionAnswering": Usage(
        "question-answering", "AutoModelForQuestionAnswering", f"--task=answer {_QUESTION}"
    ),
    "AlbertForMultipleChoice": Usage(None, "AutoModelForMultipleChoice", ""),
}


def format_usage(architecture: str, name: str, *, has_tokenizer: bool) -> Iterator[str]:
    """Yield the section of a card on loading.

    Args:
        architecture: the class of the model; nothing is known of those that are not in `USAGES`.
        name: of the model on the hub, or its directory.
        has_tokenizer: False to load the model alone.
    """
    if architecture not in USAGES:
        return
    usage = USAGES[architecture]
    read = f'.from_pretrained("{name}")'
    yield from ("## Use", "", "In transformers:", "", "```python")
    classes = f"{usage.auto_class}, AutoTokenizer" if has_tokenizer else usage.auto_class
    yield f"from transformers import {classes}"
    yield ""
    yield from ([f"tokenizer = AutoTokenizer{read}"] if has_tokenizer else [])
    yield f"model = {usage.auto_class}{read}"
    yield from ("```", "", "In albert-jax:", "")
    yield "```python"
    yield f"from albert_jax import {architecture}"
    yield from (["from data_pipeline import AlbertTokenizer"] if has_tokenizer else [])
    yield ""
    yield from ([f"tokenizer = AlbertTokenizer{read}"] if has_tokenizer else [])
    yield f"model, params = {architecture}{read}"
    yield from ("```", "")
    if has_tokenizer and usage.flags:
        yield from ("```bash", f"python -m experiments.predict --model={name} {usage.flags}")
        yield from ("```", "")
