"""Code examples in a model card: loading weights in transformers and in this project."""

from collections.abc import Iterator
from typing import NamedTuple

from albert_jax.config import Pooling, ProblemType
from albert_jax.interop.workdir import GENERATION
from albert_jax.pretrained import PretrainedWeights
from albert_jax.tasks.embedding_files import VectorForm
from experiments.converting.formats import Format, architecture_of
from experiments.prediction.examples import MASKED_TEXT


class Usage(NamedTuple):
    """How models of a class are used.

    Attributes:
        pipeline: the hub's name of the task; None if it has none.
        auto_class: transformers' class that loads them.
        flags: flags of `experiments.predict`.
        call: code that uses model and tokenizer, in transformers and in this project.
        options: further arguments of `from_pretrained`, in transformers and in this project.
    """

    pipeline: str | None
    auto_class: str
    flags: str
    call: tuple[str, str] = ("", "")
    options: str = ""


_RELEASED_CODE = "https://github.com/google-research/albert"
_TEXT = '--text="This is a text."'
_MASK = f'--text="{MASKED_TEXT}"'
_QUESTION = '--question="When?" --context="It was in 1066."'
USAGES = {
    "AlbertModel": Usage("feature-extraction", "AutoModel", ""),  # see `_usage_of`
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
    "AlbertForConditionalGeneration": Usage(
        None,
        "EncoderDecoderModel",
        "",
        call=(
            'inputs = tokenizer(["This is a text."], return_tensors="pt")\n'
            "ids = model.generate(**inputs)",
            'ids = generate(model, params, tokenizer(["This is a text."]), options).sequences',
        ),
    ),
}


def _usage_of(stored: PretrainedWeights, form: VectorForm | None) -> Usage:
    """Return how a model is used, depending on its head, its pooler and its vectors."""
    usage = USAGES[architecture_of(stored)]
    if stored.head is not None and stored.head.problem_type is ProblemType.REGRESSION:
        return usage._replace(flags=f"--task=score {_TEXT}")
    if usage is USAGES["AlbertModel"]:
        pooling = Pooling.MEAN if form is None else form.pooling
        has_pooler = "pooler" in stored.params["albert"]
        return usage._replace(
            flags=f"--task=encode --pooling={pooling} {_TEXT}",
            options="" if has_pooler else ", add_pooling_layer=False",
        )
    return usage


def format_usage(
    stored: PretrainedWeights,
    name: str,
    to: Format,
    form: VectorForm | None,
    *,
    has_tokenizer: bool,
) -> Iterator[str]:
    """Yield the section of a card on loading.

    Args:
        stored: the model; a class that is not in `USAGES` yields nothing.
        name: the model's name on the hub, or its directory.
        to: the format of the files, one that holds weights.
        form: how it makes vectors of texts, if its files say so.
        has_tokenizer: False to load the model alone.
    """
    if (architecture := architecture_of(stored)) not in USAGES:
        return
    usage = _usage_of(stored, form)
    read = f'.from_pretrained("{name}"'
    yield from ("## Use", "")
    if to is Format.HUGGINGFACE:
        yield from _format_transformers(usage, read, has_tokenizer=has_tokenizer)
    elif to is Format.TENSORFLOW:
        yield f"The files are those of the [released code]({_RELEASED_CODE}), which reads them."
        yield ""
    yield from ("In albert-jax:", "", "```python")
    generates = architecture == GENERATION
    more = ", generate, read_generation_options" if generates else ""
    yield f"from albert_jax import {architecture}{more}"
    yield from (["from data_pipeline import AlbertTokenizer"] if has_tokenizer else [])
    yield ""
    yield from ([f"tokenizer = AlbertTokenizer{read})"] if has_tokenizer else [])
    yield f"model, params = {architecture}{read}{usage.options})"
    if generates and has_tokenizer:
        yield f'options = read_generation_options("{name}")'
        yield usage.call[1]
    yield from ("```", "")
    if generates:
        yield "The ids are of the vocabulary of targets, which has a tokenizer of its own."
        yield ""
    if has_tokenizer and usage.flags:
        yield from ("```bash", f"python -m experiments.predict --model={name} {usage.flags}")
        yield from ("```", "")


def _format_transformers(usage: Usage, read: str, *, has_tokenizer: bool) -> Iterator[str]:
    yield from ("In transformers:", "", "```python")
    classes = f"{usage.auto_class}, AutoTokenizer" if has_tokenizer else usage.auto_class
    yield f"from transformers import {classes}"
    yield ""
    yield from ([f"tokenizer = AutoTokenizer{read})"] if has_tokenizer else [])
    yield f"model = {usage.auto_class}{read}{usage.options})"
    yield from ([usage.call[0]] if has_tokenizer and usage.call[0] else [])
    yield from ("```", "")
