"""The model card of an export: what the files of its source say, and nothing else."""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence

import jax

from albert_jax.pretrained import PretrainedWeights
from albert_jax.tasks.embedding_files import VectorForm
from data_pipeline.tokenizers.albert import AlbertTokenizer
from data_pipeline.tokenizers.sentencepiece import SentencePieceTokenizer
from experiments.converting.card_inference import INTEGERS, format_inference
from experiments.converting.card_usage import USAGES, format_usage
from experiments.converting.formats import Format, architecture_of, prepare_stored
from experiments.converting.provenance import Measurement, Provenance
from experiments.converting.sentence_transformers import PIPELINE, format_sentence_transformers
from experiments.finetuning.report_format import format_table

_ALBERT = "[ALBERT](https://arxiv.org/abs/1909.11942)"


def format_model_card(
    name: str,
    stored: PretrainedWeights,
    tokenizer: AlbertTokenizer | None,
    provenance: Provenance,
    to: Format = Format.HUGGINGFACE,
    form: VectorForm | None = None,
) -> str:
    """Return the text of a ``README.md`` with the header that the Hugging Face Hub reads.

    Args:
        name: the model's name on the hub, or its directory.
        stored: the model.
        tokenizer: its tokenizer, if the export includes one.
        provenance: what is known about the source.
        to: the format of the files.
        form: how it makes vectors of texts, if its files say so.

    Raises:
        WeightsError: the model cannot be exported to this format.
    """
    architecture, has_tokenizer = architecture_of(stored), tokenizer is not None
    if to is Format.SENTENCE_TRANSFORMERS:
        usage = format_sentence_transformers(name)
    elif to in INTEGERS:
        usage = format_inference(stored, to, has_tokenizer=has_tokenizer)
    else:
        usage = format_usage(stored, name, to, form, has_tokenizer=has_tokenizer)
    lines = [
        *_format_header(name, architecture, to, provenance.measurements),
        f"# {name.rpartition('/')[2]}",
        "",
        f"An {_ALBERT} of {stored.config.num_hidden_layers} layers"
        f"{_describe_decoder(stored)}, {_count_parameters(stored):,} parameters.",
        "",
        *_format_section("Model", _describe_model(stored, tokenizer)),
        *_format_section("Training", provenance.training),
        *_format_results(provenance),
        *usage,
        *_format_limits(stored, tokenizer, provenance, to),
    ]
    return "\n".join(lines)


def _format_header(
    name: str, architecture: str, to: Format, measurements: Sequence[Measurement]
) -> Iterator[str]:
    """Yield the YAML header. Its strings are JSON strings, since YAML is a superset of JSON.

    They are not escaped: YAML does not join the two halves of an escaped character.
    """
    quote = functools.partial(json.dumps, ensure_ascii=False)
    pipeline = USAGES[architecture].pipeline if architecture in USAGES else None
    if to is Format.SENTENCE_TRANSFORMERS:
        pipeline = PIPELINE
    yield "---"
    if to in (Format.HUGGINGFACE, Format.SENTENCE_TRANSFORMERS):
        yield f"library_name: {'transformers' if to is Format.HUGGINGFACE else to}"
    yield from ([f"pipeline_tag: {pipeline}"] if pipeline else [])
    yield from ("tags:", "- albert", "- jax")
    yield from ([f"- {to}"] if to is not Format.HUGGINGFACE else [])
    if measurements and pipeline:
        yield from ("model-index:", f"- name: {quote(name)}", "  results:")
        for one in measurements:
            yield from ("  - task:", f"      type: {pipeline}", "    dataset:")
            yield from (f"      {key}: {quote(one.data)}" for key in ("type", "name"))
            yield from (f"      split: {quote(one.split)}", "    metrics:")
            for metric, value in one.metrics.items():
                yield from (f"    - type: {quote(metric)}", f"      value: {value!r}")
    yield from ("---", "")


def _describe_decoder(stored: PretrainedWeights) -> str:
    if stored.decoder is None:
        return ""
    return f" that reads and a GPT-2 of {stored.decoder.n_layer} layers that writes"


def _count_parameters(stored: PretrainedWeights) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(stored.params))


def _describe_model(
    stored: PretrainedWeights, tokenizer: AlbertTokenizer | None
) -> Mapping[str, str]:
    config = stored.config
    rows = {
        "class": architecture_of(stored),
        "parameters": f"{_count_parameters(stored):,}",
        "layers": f"{config.num_hidden_layers}, parameters shared: {config.parameter_sharing}",
        "hidden size": f"{config.hidden_size}",
        "embedding size": f"{config.embedding_size}",
        "attention heads": f"{config.num_attention_heads}",
        "feed-forward size": f"{config.intermediate_size}",
        "activation": f"{config.hidden_act}",
        "positions": f"{config.max_position_embeddings}",
        "vocabulary": f"{config.vocab_size:,} tokens",
    }
    if config.num_hidden_groups > 1 or config.inner_group_num > 1:
        rows["groups of layers"] = f"{config.num_hidden_groups} of {config.inner_group_num}"
    if tokenizer is not None:
        kind = "SentencePiece"
        if not isinstance(tokenizer.tokenizer, SentencePieceTokenizer):
            kind = "WordPiece"
        rows["vocabulary"] += f", {kind}"
    if (decoder := stored.decoder) is not None:
        shared = "the encoder's" if decoder.tie_to_encoder else str(decoder.parameter_sharing)
        rows["decoder layers"] = f"{decoder.n_layer}, parameters shared: {shared}"
        rows["decoder width"] = f"{decoder.n_embd}"
        rows["decoder vocabulary"] = f"{decoder.vocab_size:,} tokens"
        rows["decoder positions"] = f"{decoder.n_positions}"
    if stored.head is not None and "classifier" in stored.params:
        rows["labels"] = ", ".join(stored.head.labels)
    return rows


def _format_section(title: str, rows: Mapping[str, str]) -> Iterator[str]:
    if rows:
        yield from (f"## {title}", "")
        yield from format_table(("", ""), rows.items())


def _format_results(provenance: Provenance) -> Iterator[str]:
    if not provenance.measurements:
        return
    yield from ("## Results", "")
    rows = [
        (one.data, one.split, name, f"{value:.4g}", _number(one.baseline.get(name)))
        for one in provenance.measurements
        for name, value in one.metrics.items()
    ]
    columns = ("data", "split", "metric", "value", "constant answer")
    used = 5 if any(row[4] for row in rows) else 4
    yield from format_table(columns[:used], [row[:used] for row in rows])
    if provenance.failed:
        yield from (f"The run counts as failed: {provenance.failed}.", "")


def _format_limits(
    stored: PretrainedWeights,
    tokenizer: AlbertTokenizer | None,
    provenance: Provenance,
    to: Format,
) -> Iterator[str]:
    yield from ("## Limits", "")
    if to in INTEGERS:
        yield "- The file has inference alone, in float32; it cannot be trained further."
    if to is Format.STABLEHLO:
        yield f"- It was written by JAX {jax.__version__}; the JAX of six months later reads it."
    if to in INTEGERS and (shortest := prepare_stored(stored).shortest_row) > 1:
        yield f"- A row has at least {shortest} tokens."
    positions, trained = stored.config.longest_row, provenance.trained_length
    if positions is not None:
        yield f"- A row has at most {positions} tokens."
    if stored.decoder is not None:
        yield f"- A text that it writes has at most {stored.decoder.n_positions} tokens."
    if trained is not None and (positions is None or trained < positions):
        yield f"- The rows of its training had up to {trained} tokens."
    if tokenizer is not None and tokenizer.tokenizer.lower_case:
        yield "- Text is lowercased."
    if tokenizer is not None and not tokenizer.tokenizer.keep_accents:
        yield "- Accents are dropped."
    if provenance.measurements:
        yield "- The files that it was converted from record no other measurements."
    else:
        yield "- The files that it was converted from record no measurements."
    yield ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
