"""The description of a finished corpus: counts, hashes, statistics, and the printed report."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from data_pipeline.building.selection.filters import format_rejections
from data_pipeline.building.splits.measurement import (
    ROW_LENGTHS,
    SPECIAL_TOKENS,
    SplitReport,
    TextCounts,
)
from data_pipeline.corpus.chunks import LOW_COVERAGE
from data_pipeline.corpus.metadata import (
    COUNTED,
    FORMAT_VERSION,
    CorpusMetadata,
    SourceMetadata,
    fingerprint_content,
)
from data_pipeline.corpus.reader import Corpus
from data_pipeline.corpus.splits import TRAIN, VALIDATION
from data_pipeline.tokenizers.tokenizer import Tokenizer

_MOST_FREQUENT = 20


def describe_corpus(
    tokenizer_files: Mapping[str, Mapping[str, Any]],
    splits: Mapping[str, SplitReport],
    *,
    vocab_size: int,
    sources: Mapping[str, float],
    settings: Mapping[str, Any],
    versions: Mapping[str, str],
    report: Mapping[str, Any],
) -> CorpusMetadata:
    """Describe a corpus based on the reports of its splits.

    Args:
        tokenizer_files: path within the corpus -> bytes and SHA-256.
        splits: the reports of both splits.
        vocab_size: number of tokens in the vocabulary.
        sources: name -> weight, in the order in which documents number them.
        settings: the settings of the build.
        versions: the versions of libraries.
        report: the report of the build.
    """
    counts: dict[str, dict[str, dict[str, int]]] = {name: {} for name in sources}
    totals = {}
    files = dict(tokenizer_files)
    for split in (TRAIN, VALIDATION):
        by_source = splits[split].text.by_source
        for name, numbers in zip(sources, by_source.tolist(), strict=True):
            counts[name][split] = dict(zip(COUNTED, numbers, strict=True))
        total = dict(zip(COUNTED, by_source.sum(axis=0).tolist(), strict=True))
        totals[split] = {"shards": splits[split].num_shards, **total}
        files |= splits[split].files
    files = {name: files[name] for name in sorted(files, key=lambda name: name.split("/"))}
    return CorpusMetadata(
        format_version=FORMAT_VERSION,
        fingerprint=fingerprint_content(files, sources),
        vocab_size=vocab_size,
        sources=tuple(
            SourceMetadata(name, weight, counts[name]) for name, weight in sources.items()
        ),
        splits=totals,
        files=files,
        settings=settings,
        report=report,
        versions=versions,
    )


def describe_training_text(text: TextCounts, tokenizer: Tokenizer) -> dict[str, Any]:
    """Compute the statistics of the training text for the metadata.

    Returns:
        tokens_per_document; unknown_rate, the fraction of unknown tokens; row_fill_512, the
        fraction of positions filled in rows of 512 with one pair each; coverage_512 and
        coverage_128, the fraction of tokens that an epoch of such rows reads, while the others are
        truncated, different ones in each epoch; most_frequent_pieces, token -> count.
    """
    num_documents, _, num_tokens = text.by_source.sum(axis=0).tolist()
    order = np.argsort(-text.tokens, kind="stable")[:_MOST_FREQUENT].tolist()
    (filled, rows), (filled_of_short, _) = text.rows.tolist()
    length, short_length = ROW_LENGTHS
    fill = filled / (rows * length) + SPECIAL_TOKENS / length
    return {
        "tokens_per_document": round(num_tokens / num_documents, 1),
        "unknown_rate": float(f"{text.tokens[tokenizer.unk_id] / text.tokens.sum():.3g}"),
        f"row_fill_{length}": round(fill, 4),
        f"coverage_{length}": round(filled / num_tokens, 4),
        f"coverage_{short_length}": round(filled_of_short / num_tokens, 4),
        "most_frequent_pieces": {tokenizer.tokens[id]: int(text.tokens[id]) for id in order},
    }


def format_report(corpus: Corpus, place: str) -> str:
    """Format the closing report of a build, in several lines.

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
