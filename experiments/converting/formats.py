"""The formats that a model can be written in, with its tokenizer and all else they can hold."""

import dataclasses
import functools
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from etils import epath

from albert_jax.durable_files import new_directory
from albert_jax.exporting import write_onnx, write_stablehlo
from albert_jax.exporting.inference import ExportedModel, prepare_export
from albert_jax.interop.names import WeightsError
from albert_jax.interop.saving import CARD_FILE, save_huggingface, write_files
from albert_jax.interop.stored_weights import flatten
from albert_jax.interop.tensorflow_checkpoint import write_tensorflow
from albert_jax.interop.workdir import ALBERT_CONFIG_FILE, CHECKPOINTS, HEAD_FILE, write_head
from albert_jax.pretrained import PretrainedWeights
from albert_jax.tasks.embedding_files import VectorForm, embedding_files
from albert_jax.training.checkpoint import Checkpoints
from data_pipeline.tokenizers.albert import AlbertTokenizer
from data_pipeline.tokenizers.sentencepiece import SentencePieceTokenizer
from data_pipeline.tokenizers.sentencepiece_model import parse_model
from data_pipeline.tokenizers.tokenizer import TOKENIZER_DIRECTORY
from experiments.converting.generation_files import (
    GenerationFiles,
    check_encoder_alone,
    write_for_transformers,
    write_to_workdir,
)
from experiments.converting.sentence_transformers import (
    keep_encoder,
    write_sentence_transformers,
)

_Writer = Callable[[Path, PretrainedWeights, AlbertTokenizer | None], None]

RELEASED_VOCABULARY = "30k-clean"


class Format(StrEnum):
    """Formats that can be written."""

    HUGGINGFACE = "huggingface"
    SENTENCE_TRANSFORMERS = "sentence-transformers"
    TENSORFLOW = "tensorflow"
    ORBAX = "orbax"
    ONNX = "onnx"
    STABLEHLO = "stablehlo"


# Parts of replaced-token detection, which only this project's own format holds.
_DETECTION = ("discriminator_predictions", "generator")


def without_detection(stored: PretrainedWeights, to: Format) -> PretrainedWeights:
    """Return the part of a model that a format holds, if it was trained to find replaced tokens.

    The detection head is dropped, and so is a generator that is not the encoder itself. Such a
    generator has the masked-LM head. Without that head, the model is no longer a pre-training
    model, so its sentence-order head is dropped too, and only the encoder is left.
    """
    if to is Format.ORBAX or not stored.params.keys() & set(_DETECTION):
        return stored
    dropped = {*_DETECTION, *(["sop_classifier"] if "generator" in stored.params else [])}
    params = {name: part for name, part in stored.params.items() if name not in dropped}
    return dataclasses.replace(stored, params=params)


def convert(
    stored: PretrainedWeights,
    tokenizer: AlbertTokenizer | None,
    to: Format,
    output: Path,
    *,
    card: str | None = None,
    generation: GenerationFiles | None = None,
    form: VectorForm | None = None,
) -> None:
    """Write all of a model that the format holds, heads included, into a new directory.

    Args:
        stored: the model.
        tokenizer: None to write the weights alone.
        to: the format.
        output: the directory.
        card: the text of ``README.md``; see `format_model_card`.
        generation: what a model with a decoder has beside its weights.
        form: how the model makes vectors of texts, if its files say so.

    Raises:
        WeightsError: the directory exists, the format cannot hold the model or its added tokens, or
            the vocabulary is not the model's.
    """
    if tokenizer is not None and tokenizer.vocab_size != stored.config.vocab_size:
        raise WeightsError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model has "
            f"{stored.config.vocab_size}"
        )
    if to is Format.HUGGINGFACE and stored.decoder is None:
        save_huggingface(
            output,
            flatten(stored.params),
            stored.config,
            stored.head,
            architecture=architecture_of(stored),
            tokenizer=tokenizer,
            card=card,
        )
        return
    if to is Format.SENTENCE_TRANSFORMERS:
        write_sentence_transformers(output, keep_encoder(stored), tokenizer, form, card=card)
        return
    generation = generation or GenerationFiles()
    writers: dict[Format, _Writer] = {
        Format.HUGGINGFACE: functools.partial(write_for_transformers, files=generation),
        Format.TENSORFLOW: _write_released,
        Format.ORBAX: functools.partial(_write_workdir, generation=generation),
        Format.ONNX: functools.partial(_write_graph, write_onnx),
        Format.STABLEHLO: functools.partial(_write_graph, write_stablehlo),
    }
    with new_directory(output, error=WeightsError) as directory:
        writers[to](directory, stored, tokenizer)
        if to is Format.ORBAX and form is not None:
            write_files(directory, embedding_files(stored.config, form))
        if card is not None:
            (directory / CARD_FILE).write_text(card, encoding="utf-8")


def architecture_of(stored: PretrainedWeights) -> str:
    """Return the name of the class that has exactly these parameters."""
    heads = stored.params.keys() - {"albert"}
    if stored.architecture is not None:
        return stored.architecture
    if "classifier" in heads:
        pooled = "pooler" in stored.params["albert"]
        return f"AlbertFor{'Sequence' if pooled else 'Token'}Classification"
    if "qa_outputs" in heads:
        return "AlbertForQuestionAnswering"
    if "predictions" in heads:
        return "AlbertForPreTraining" if "sop_classifier" in heads else "AlbertForMaskedLM"
    return "AlbertModel"


def _write_released(
    directory: Path, stored: PretrainedWeights, tokenizer: AlbertTokenizer | None
) -> None:
    check_encoder_alone(stored)
    if tokenizer is not None and (added := tokenizer.tokenizer.added_tokens.new):
        raise WeightsError(
            f"the tensorflow format has no place for added tokens: {', '.join(added)}"
        )
    write_tensorflow(directory, flatten(stored.params), stored.config, step=stored.step or 0)
    if tokenizer is None:
        return
    vocabulary = tokenizer.tokenizer.vocabulary_bytes()
    if not isinstance(tokenizer.tokenizer, SentencePieceTokenizer):
        (directory / "vocab.txt").write_bytes(vocabulary)
        return
    (directory / f"{RELEASED_VOCABULARY}.model").write_bytes(vocabulary)
    lines = [f"{piece.piece}\t{piece.score:g}\n" for piece in parse_model(vocabulary).pieces]
    (directory / f"{RELEASED_VOCABULARY}.vocab").write_text("".join(lines), encoding="utf-8")


def _write_workdir(
    directory: Path,
    stored: PretrainedWeights,
    tokenizer: AlbertTokenizer | None,
    generation: GenerationFiles,
) -> None:
    stored.config.to_json_file(directory / ALBERT_CONFIG_FILE)
    if stored.decoder is not None:
        write_to_workdir(directory, stored.decoder, generation)
    if stored.head is not None:
        write_head(epath.Path(directory / HEAD_FILE), architecture_of(stored), stored.head)
    if tokenizer is not None:
        tokenizer.tokenizer.save(directory / TOKENIZER_DIRECTORY)
    with Checkpoints(
        directory / CHECKPOINTS, keep=1, documents={"albert_config": stored.config.to_dict()}
    ) as checkpoints:
        checkpoints.save(stored.step or 0, {"params": stored.params}, finite=True)


def _write_graph(
    write: Callable[[Path, ExportedModel], None],
    directory: Path,
    stored: PretrainedWeights,
    tokenizer: AlbertTokenizer | None,
) -> None:
    write(directory, prepare_stored(stored))
    if tokenizer is not None:
        longest = stored.config.max_position_embeddings
        tokenizer.save_pretrained(directory, model_max_length=longest)


def prepare_stored(stored: PretrainedWeights) -> ExportedModel:
    """Return a model for the export of inference; see `prepare_export`.

    Raises:
        WeightsError: it has a decoder, or see `prepare_export`.
    """
    check_encoder_alone(stored)
    return prepare_export(architecture_of(stored), stored.config, stored.head, stored.params)


def list_losses(
    stored: PretrainedWeights,
    tokenizer: AlbertTokenizer | None,
    to: Format,
    form: VectorForm | None = None,
) -> list[str]:
    """List what the format cannot hold and the reader of the output has to know."""
    kept = without_detection(stored, to).params
    losses = [f"{name}, of replaced-token detection" for name in stored.params if name not in kept]
    if to is Format.SENTENCE_TRANSFORMERS and (heads := kept.keys() - {"albert"}):
        losses.append(f"the heads ({', '.join(sorted(heads))})")
    if form is not None and to not in (Format.SENTENCE_TRANSFORMERS, Format.ORBAX):
        losses.append(f"how vectors are made (pooling {form.pooling})")
    if to is not Format.TENSORFLOW:
        return losses
    if stored.head is not None:
        losses.append(f"the labels ({', '.join(stored.head.labels)})")
    if tokenizer is None:
        return losses
    if not tokenizer.tokenizer.lower_case:
        losses.append("that text is not lowercased (--do_lower_case=false)")
    if tokenizer.tokenizer.keep_accents:
        losses.append("that accents are kept")
    if added := tokenizer.tokenizer.added_tokens.tokens:
        losses.append(f"that these stay whole: {', '.join(token.content for token in added)}")
    return losses
