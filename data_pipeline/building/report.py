"""The description of a finished corpus: counts, hashes, statistics, and the printed report."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from data_pipeline.building.selection.filters import format_rejections
from data_pipeline.corpus.chunks import LOW_COVERAGE, LongSentenceCutter, cut_documents
from data_pipeline.corpus.metadata import (
    COUNTED,
    FORMAT_VERSION,
    CorpusMetadata,
    SourceMetadata,
    fingerprint_content,
)
from data_pipeline.corpus.reader import Corpus, list_files
from data_pipeline.corpus.splits import TRAIN, VALIDATION, Shard, Split, shard_name
from data_pipeline.memory_maps import MappedDirectory
from data_pipeline.tokenizers.tokenizer import Tokenizer
from data_pipeline.verification import describe_files

# Lengths of rows that are reported, since a build does not know those of training.
_ROW_LENGTH, _SHORT_ROW_LENGTH = 512, 128
_SPECIAL_TOKENS = 3
_MOST_FREQUENT = 20
_TOKENS_PER_READ = 1 << 22
_DOCUMENTS_PER_READ = 1 << 14


def describe_corpus(
    directory: Path,
    *,
    vocab_size: int,
    sources: Mapping[str, float],
    settings: Mapping[str, Any],
    versions: Mapping[str, str],
) -> CorpusMetadata:
    """Count the text of a finished directory and hash its files; the report is left empty.

    Args:
        directory: holds the tokenizer and both splits, complete.
        vocab_size: tokens in the vocabulary.
        sources: name -> weight, in the order in which documents number them.
        settings: of the build.
        versions: of libraries.
    """
    counts: dict[str, dict[str, dict[str, int]]] = {name: {} for name in sources}
    splits = {}
    for split in (TRAIN, VALIDATION):
        num_shards = len(list((directory / split).glob("shard-*")))
        mapped = MappedDirectory(directory / split)
        shards = (Shard(mapped, shard_name(n), vocab_size) for n in range(num_shards))
        per_source = _count_by_source(shards, len(sources))
        for name, numbers in zip(sources, per_source.tolist(), strict=True):
            counts[name][split] = dict(zip(COUNTED, numbers, strict=True))
        totals = per_source.sum(axis=0).tolist()
        splits[split] = {"shards": num_shards, **dict(zip(COUNTED, totals, strict=True))}
    files = describe_files(directory, list_files(directory))
    return CorpusMetadata(
        format_version=FORMAT_VERSION,
        fingerprint=fingerprint_content(files, sources),
        vocab_size=vocab_size,
        sources=tuple(
            SourceMetadata(name, weight, counts[name]) for name, weight in sources.items()
        ),
        splits=splits,
        files=files,
        settings=settings,
        report={},
        versions=versions,
    )


def _count_by_source(shards: Iterable[Shard], num_sources: int) -> np.ndarray:
    """Count the documents, sentences and tokens of each source: int64 [sources, 3]."""
    counts = np.zeros((num_sources, 3), np.int64)
    for shard in shards:
        sentences = np.diff(shard.document_offsets)
        tokens = np.diff(shard.sentence_offsets[shard.document_offsets])
        for column, weights in enumerate((None, sentences, tokens)):
            counts[:, column] += np.bincount(
                shard.document_sources, weights, minlength=num_sources
            ).astype(np.int64)
    return counts


def describe_training_text(corpus: Corpus, tokenizer: Tokenizer) -> dict[str, Any]:
    """Compute the statistics of the training text that the metadata keeps.

    Returns:
        tokens_per_document; unknown_rate, the fraction of unknown tokens; row_fill_512, the
        fraction of positions filled in rows of 512 with one pair each; coverage_512 and
        coverage_128, the fraction of tokens that an epoch of such rows reads;
        most_frequent_pieces, token -> count.
    """
    train = corpus.splits[TRAIN]
    counts = count_tokens(train, tokenizer.vocab_size)
    fill, coverage = measure_rows(train, tokenizer, _ROW_LENGTH)
    _, coverage_of_short = measure_rows(train, tokenizer, _SHORT_ROW_LENGTH)
    order = np.argsort(-counts, kind="stable")[:_MOST_FREQUENT]
    return {
        "tokens_per_document": round(train.num_tokens / train.num_documents, 1),
        "unknown_rate": float(f"{counts[tokenizer.unk_id] / counts.sum():.3g}"),
        f"row_fill_{_ROW_LENGTH}": round(fill, 4),
        f"coverage_{_ROW_LENGTH}": round(coverage, 4),
        f"coverage_{_SHORT_ROW_LENGTH}": round(coverage_of_short, 4),
        "most_frequent_pieces": {tokenizer.tokens[id]: int(counts[id]) for id in order.tolist()},
    }


def count_tokens(split: Split, vocab_size: int) -> Int64[np.ndarray, " vocabulary"]:
    """Count how often each token of the vocabulary occurs."""
    counts = np.zeros(vocab_size, np.int64)
    for shard in split.shards:
        for start in range(0, len(shard.tokens), _TOKENS_PER_READ):
            part = shard.tokens[start : start + _TOKENS_PER_READ]
            counts += np.bincount(part, minlength=vocab_size)
    return counts


def measure_rows(split: Split, tokenizer: Tokenizer, length: int) -> tuple[float, float]:
    """Measure rows of a length that hold one full-length pair each.

    Returns:
        The fraction of their positions that are filled, and the fraction of all tokens that an
        epoch of them reads; the others are truncated, other ones in each epoch.
    """
    capacity = length - _SPECIAL_TOKENS
    cutter = LongSentenceCutter(lambda: tokenizer, capacity)
    filled = rows = 0
    for shard in split.shards:
        for first in range(0, len(shard.document_sources), _DOCUMENTS_PER_READ):
            boundaries = shard.document_offsets[first : first + _DOCUMENTS_PER_READ + 1]
            offsets = shard.sentence_offsets[boundaries[0] : boundaries[-1] + 1].astype(np.int64)
            units = cutter.cut(shard.tokens, offsets)
            documents = units.firsts[boundaries.astype(np.int64) - boundaries[0]]
            targets = np.full(len(documents) - 1, capacity)
            chunks = cut_documents(units, documents[:-1], documents[1:], targets, capacity)
            lengths = units.offsets[chunks.ends] - units.offsets[chunks.firsts]
            filled += int(np.minimum(lengths, capacity).sum())
            rows += len(lengths)
    fill = filled / (rows * length) + _SPECIAL_TOKENS / length
    return fill, filled / split.num_tokens


def format_report(corpus: Corpus, place: str) -> str:
    """Format the closing report of a build, several lines.

    Args:
        corpus: the corpus, or a local copy of it.
        place: its directory or URL.
    """
    metadata, report = corpus.metadata, corpus.metadata.report
    lines = [
        f"{place}: {metadata.vocab_size:,} tokens in the vocabulary, fingerprint "
        f"{metadata.fingerprint[:16]}",
        *_format_counts(corpus),
        f"{report['tokens_per_document']:,} tokens a document, "
        f"{100 * report['unknown_rate']:.3g} % unknown; "
        f"one pair fills {100 * report['row_fill_512']:.1f} % of a row of 512",
        f"an epoch reads {100 * report['coverage_512']:.1f} % of the tokens in rows of 512, "
        f"{100 * report['coverage_128']:.1f} % in rows of 128",
        f"most frequent tokens: {' '.join(report['most_frequent_pieces'])}",
        f"dropped: {report['duplicate_documents']:,} duplicate documents; "
        f"{report['held_out_sentences_removed']:,} held-out sentences and "
        f"{report['held_out_documents_removed']:,} held-out documents that training has too",
    ]
    lines += format_rejections(report.get("rejected", {}))
    if near := report.get("near_duplicates"):
        lines.append(
            f"near-duplicates: {near['clusters']:,} clusters, of which the first document stays; "
            f"dropped {near['documents']:,} documents, "
            f"{100 * near['characters'] / near['characters_before']:.1f} % of the text"
        )
    lines += [
        f"{what}: {report[name]:,}"
        for name, what in (
            ("replaced_lines", "lines with bad UTF-8, replaced"),
            ("skipped_lines", "lines with bad UTF-8, skipped"),
            ("cut_documents", "very long documents cut into parts"),
        )
        if report[name]
    ]
    if report["coverage_512"] < LOW_COVERAGE:
        lines.append(
            "warning: sentences are long for rows of 512; what does not fit is truncated, other "
            "tokens in each epoch"
        )
    if not metadata.splits[VALIDATION]["documents"]:
        lines.append("no text was held out, so evaluation is impossible: set a larger --held_out")
    return "\n".join(lines)


def _format_counts(corpus: Corpus) -> list[str]:
    """Format a table of the documents, sentences and tokens of each split and source."""
    metadata = corpus.metadata
    lines = [f"{'':20}{'documents':>14}{'sentences':>14}{'tokens':>16}"]
    for split in (TRAIN, VALIDATION):
        rows = [(split, metadata.splits[split])]
        if len(metadata.sources) > 1:
            rows += [(f"  {source.name}", source.counts[split]) for source in metadata.sources]
        lines += [
            f"{name:20}{counts['documents']:14,}{counts['sentences']:14,}{counts['tokens']:16,}"
            for name, counts in rows
        ]
    return lines
