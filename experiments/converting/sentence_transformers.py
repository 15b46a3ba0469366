"""Directories that sentence-transformers loads: an encoder, and how it makes vectors of texts."""

from collections.abc import Iterator
from pathlib import Path

from albert_jax.config import Pooling
from albert_jax.interop.names import WeightsError
from albert_jax.interop.saving import save_huggingface
from albert_jax.interop.stored_weights import flatten
from albert_jax.pretrained import PretrainedWeights
from albert_jax.settings import FieldError
from albert_jax.tasks.embedding_files import VectorForm, sentence_transformers_files
from data_pipeline.tokenizers.albert import AlbertTokenizer
from experiments.converting.generation_files import check_encoder_alone

ENCODER = "AlbertModel"  # transformers' class
PIPELINE = "sentence-similarity"  # the hub's name of the task
# For a model that was not trained for vectors.
DEFAULT_FORM = VectorForm(Pooling.MEAN, normalize=True)


def keep_encoder(stored: PretrainedWeights) -> PretrainedWeights:
    """Return a model without its heads.

    Raises:
        WeightsError: it has a decoder.
    """
    check_encoder_alone(stored)
    return PretrainedWeights(
        stored.config, None, {"albert": stored.params["albert"]}, ENCODER, stored.step
    )


def write_sentence_transformers(
    output: Path,
    stored: PretrainedWeights,
    tokenizer: AlbertTokenizer | None,
    form: VectorForm | None,
    *,
    card: str | None,
) -> None:
    """Write a new directory that sentence-transformers loads.

    Args:
        output: the directory.
        stored: an encoder without heads.
        tokenizer: its tokenizer.
        form: how vectors are made; None takes `DEFAULT_FORM`.
        card: the text of ``README.md``.

    Raises:
        WeightsError: there is no tokenizer, the directory exists, or transformers has no such
            model.
    """
    if tokenizer is None:
        raise WeightsError("the sentence-transformers format needs a tokenizer: --tokenizer=...")
    try:
        files = sentence_transformers_files(stored.config, form or DEFAULT_FORM)
    except FieldError as error:
        raise WeightsError(str(error)) from error
    save_huggingface(
        output,
        flatten(stored.params),
        stored.config,
        None,
        architecture=ENCODER,
        tokenizer=tokenizer,
        card=card,
        files=files,
    )


def format_sentence_transformers(name: str) -> Iterator[str]:
    """Yield the section of a card on making vectors, in that package and in this project."""
    yield from ("## Use", "", "In sentence-transformers:", "", "```python")
    yield "from sentence_transformers import SentenceTransformer"
    yield ""
    yield f'model = SentenceTransformer("{name}")'
    yield 'vectors = model.encode(["A man eats.", "Someone is eating."])'
    yield "print(model.similarity(vectors, vectors))"
    yield from ("```", "", "In albert-jax:", "", "```bash")
    yield f"python -m experiments.predict --task=similarity --model={name} \\"
    yield '    --text="A man eats." --text_pair="Someone is eating."'
    yield from ("```", "")
