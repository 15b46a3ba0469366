"""Parts hold every document once, in order; shards are cut as if documents came one by one."""

import gzip
import itertools
import json

import numpy as np
import pytest
from etils import epath

from data_pipeline.building import parts
from data_pipeline.building.beam.stages import DocumentCopies, find_duplicates
from data_pipeline.building.encoding import SamplingTask
from data_pipeline.building.parts import cut_into_parts, read_part
from data_pipeline.building.selection.documents import SelectedDocuments, Selection
from data_pipeline.building.selection.hashes import hash_documents
from data_pipeline.building.splits.blocks import (
    DocumentSizes,
    EncodedBlock,
    EncodedDocuments,
    read_block,
    write_block,
)
from data_pipeline.building.splits.held_out import BlockSplits, is_held_out, union
from data_pipeline.building.splits.shards import Piece, cut_shards
from data_pipeline.corpus.splits import ShardSize
from data_pipeline.errors import InputError
from data_pipeline.sources.documents import FileEnd, Source, SourceFormat
from data_pipeline.sources.sentences import SentenceSplitter
from data_pipeline.sources.text_files import EncodingErrors, ReadingProgress

PARAGRAPHS = [
    "Ünïted stätes.",
    "a",
    "</doc> is no end of a line",
    "<doc is",
    "{",
    "\u3000 c \u2028",
]

FORMATS = {
    SourceFormat.TEXT: lambda documents: "".join(
        "\n".join(document) + "\n\n \n"[: 2 + n % 3] for n, document in enumerate(documents)
    ),
    SourceFormat.SENTENCES: lambda documents: "\n\n\n".join(map("\n".join, documents)),
    SourceFormat.JSONL: lambda documents: "\r\n".join(
        json.dumps({"text": "\n".join(document)}, ensure_ascii=False) for document in documents
    ),
    SourceFormat.WIKIEXTRACTOR: lambda documents: "".join(
        f'<doc title="T">\nT\n\n{chr(10).join(document)}\n</doc>{" " * (n % 2)}\n'
        for n, document in enumerate(documents)
    ),
}


@pytest.mark.parametrize("format", FORMATS)
def test_ranges_of_any_size_read_what_the_whole_file_has(format, tmp_path):
    random = np.random.default_rng(0)
    documents = [list(random.choice(PARAGRAPHS, random.integers(1, 5))) for _ in range(12)]
    for name in ("a", "b"):
        text = FORMATS[format](documents if name == "a" else documents[:3])
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" * (name == "a") + text.encode())
    # A byte order mark hides the first tag, and nothing is cut.
    source = Source("s", format, (f"{tmp_path}/*",))
    files = source.find_inputs()
    if format is SourceFormat.WIKIEXTRACTOR:
        (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[3:])
        files = source.find_inputs()
    whole = list(source.read(files, ReadingProgress()))
    assert len(whole) == 15
    cut = 0
    for size in (1, 2, 3, 7, 50, 333, 10**6):
        parts = cut_into_parts(source, 0, files, size)
        found = [list(read_part(source, part, ReadingProgress())) for part in parts]
        assert [document for part in found for document in part] == whole
        assert sum(part.size for part in parts) == sum(file.size for file in files)
        cut += sum(map(bool, found)) > 5
    assert cut >= 4


def test_a_fault_in_a_range_is_named_by_its_line_in_the_file(tmp_path):
    lines = [json.dumps({"text": "a" * n}) for n in range(20)]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, "{", *lines]))
    source = Source("s", SourceFormat.JSONL, (f"{tmp_path}/a.jsonl",))
    parts = cut_into_parts(source, 0, source.find_inputs(), 100)
    with pytest.raises(InputError, match=r"a\.jsonl:21: "):
        for part in parts:
            list(read_part(source, part, ReadingProgress()))


def test_what_cannot_be_cut_stays_whole(tmp_path):
    for name in ("a.txt", "b.txt", "c.txt"):
        (tmp_path / name).write_text("A.\n\nB.\n")
    (tmp_path / "d.txt.gz").write_bytes(gzip.compress(b"A.\n\nB.\n" * 100))
    source = Source("s", SourceFormat.TEXT, (f"{tmp_path}/*",))
    *_, packed = files = source.find_inputs()
    parts = cut_into_parts(source, 0, files, 15)
    assert [part.files for part in parts] == [tuple(files[:2]), (files[2],), (packed,)]
    continued = Source("s", SourceFormat.TEXT, source.inputs, file_end=FileEnd.CONTINUES)
    assert [part.files for part in cut_into_parts(continued, 0, files, 3)] == [tuple(files)]


def test_faults_are_counted_in_the_part_that_has_them(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"A.\n\n" * 5 + b"\xff\n\n" + b"B.\n\n" * 5 + b"\xff")
    source = Source(
        "s", SourceFormat.TEXT, (f"{tmp_path}/a.txt",), encoding_errors=EncodingErrors.SKIP
    )
    counts = []
    for part in cut_into_parts(source, 0, source.find_inputs(), 20):
        progress = ReadingProgress()
        list(read_part(source, part, progress))
        counts.append(progress.faults()["skipped_lines"])
    assert sum(counts) == 2 and counts[0] == 1 and counts[-1] == 1


def test_faults_are_counted_in_the_block_that_has_them(tmp_path, monkeypatch):
    """Blocks of a file that is too large for a part, which one process reads."""
    monkeypatch.setattr(parts, "_BLOCK_CHARACTERS", 10)
    text = b"\xff\n\n" + b"Some words.\n\n" * 5 + b"\xff\n\nSome words.\n\n\xff"
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text))
    source = Source(
        "s", SourceFormat.TEXT, (f"{tmp_path}/a.txt.gz",), encoding_errors=EncodingErrors.SKIP
    )
    blocks = list(itertools.islice(parts.read_blocks([source], [source.find_inputs()]), 9))
    assert [len(block.documents) for block in blocks] == [1] * 6 + [0]
    skipped = [block.faults["skipped_lines"] for block in blocks]
    assert skipped[0] == skipped[5] == skipped[6] == sum(skipped) / 3 == 1


def test_a_file_that_changed_is_named(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("A.")
    (found,) = Source("s", SourceFormat.TEXT, (str(file),)).find_inputs()
    found.require_unchanged()
    file.write_text("B!!")
    with pytest.raises(InputError, match=r"a\.txt has changed since"):
        found.require_unchanged()


def greedy(sizes, max_bytes):
    """Cut documents, given one by one as (tokens, sentences), into shards of two-byte tokens."""
    shards, tokens, sentences, documents = [], 0, 0, 0
    for more_tokens, more_sentences in sizes:
        tokens, sentences, documents = (
            tokens + more_tokens,
            sentences + more_sentences,
            documents + 1,
        )
        if not shards or 2 * tokens + 4 * (sentences + documents + 2) + documents > max_bytes:
            shards.append(0)
            tokens, sentences, documents = more_tokens, more_sentences, 1
        shards[-1] += 1
    return shards


def test_shards_are_cut_as_if_documents_came_one_by_one():
    random = np.random.default_rng(0)
    for _ in range(200):
        blocks = [
            DocumentSizes(random.integers(1, 40, n), random.integers(1, 9, n))
            for n in random.integers(0, 12, random.integers(1, 8))
        ]
        totals = [ShardSize(int(s.tokens.sum()), int(s.sentences.sum()), len(s[0])) for s in blocks]
        most = int(random.integers(130, 900))
        asked: list[int] = []

        def sizes_of(number, blocks=blocks, asked=asked):
            asked.append(number)
            return blocks[number]

        shards = list(cut_shards(totals, sizes_of, 100, max_shard_bytes=most))
        documents = [pair for sizes in blocks for pair in zip(*sizes, strict=True)]
        counts = [sum(piece.last - piece.first for piece in pieces) for pieces in shards]
        assert counts == greedy(documents, most)
        assert len(asked) <= len(shards)
        flat = [(p.block, d) for pieces in shards for p in pieces for d in range(p.first, p.last)]
        assert flat == [(b, d) for b, sizes in enumerate(blocks) for d in range(len(sizes[0]))]
    with pytest.raises(ValueError, match="more than a shard has"):
        list(
            cut_shards(
                [ShardSize(900, 1, 1)],
                lambda _: DocumentSizes(*([[900], [1]])),
                100,
                max_shard_bytes=500,
            )
        )
    assert list(cut_shards([ShardSize()], blocks.__getitem__, 100)) == []
    assert list(cut_shards([ShardSize(1, 1, 1)], blocks.__getitem__, 100)) == [[Piece(0, 0, 1)]]


def test_of_equal_documents_the_first_one_stays():
    """Ordinals are those of part 2, document 7, and so on."""
    ordinals = [(place << 32) + document for place, document in ((3, 0), (2, 7), (2, 9))]
    assert list(find_duplicates(ordinals)) == [
        DocumentCopies(3, 0, others=0),
        DocumentCopies(2, 9, others=0),
        DocumentCopies(2, 7, others=2),
    ]
    assert list(find_duplicates(ordinals[:1])) == []


def test_a_vocabulary_is_trained_on_a_sample_of_what_is_not_held_out():
    documents = [[f"Document {number}."] for number in range(1000)]
    task = SamplingTask(
        sources=(),
        selection=Selection(("s",)),
        splitter=SentenceSplitter("en", (SourceFormat.TEXT,)),
        lower_case=True,
        keep_accents=False,
        held_out=0.2,
        sampled=0.5,
    )
    hashes = hash_documents(documents)
    sample = task.sample(SelectedDocuments(documents, hashes, {}, {}), 0)
    places = hashes / 2**64  # half of the documents from 0.2 on
    assert sample == [f"document {n}." for n in np.flatnonzero((places >= 0.2) & (places < 0.6))]
    assert 300 < len(sample) < 500


def test_blocks_are_read_as_written_and_split_by_hash(tmp_path):
    hashes = np.array([1 << 62, 5, (1 << 64) - 1], np.uint64)
    documents = EncodedDocuments(
        np.arange(10) + 70_000, np.array([2, 3, 1, 4]), np.array([1, 2, 1]), np.full(3, 255)
    )
    block = EncodedBlock(documents, hashes, np.array([7, 0, 9, 9], np.uint64))
    write_block(epath.Path(tmp_path / "new/block"), block, 80_010)
    read = read_block(epath.Path(tmp_path / "new/block"), with_tokens=True)
    for got, wanted in zip((*read[0], *read[1:]), (*documents, *block[1:]), strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert is_held_out(hashes, 0.2).tolist() == [False, True, False]
    splits = BlockSplits(read, 0.2)
    assert splits.hashes("validation").tolist() == [9]
    assert splits.training_has(np.array([3, 9], np.uint64)).tolist() == [9]
    without = splits._replace(in_training=np.array([9], np.uint64))
    assert without.select("validation").tokens.tolist() == [70_002, 70_003, 70_004]
    assert without.removed() == {"held_out_sentences_removed": 1, "held_out_documents_removed": 0}
    dropped = without._replace(is_new=np.array([True, True, False]))
    assert dropped.select("train").tokens.tolist() == [70_000, 70_001]
    assert dropped.total("train") == ShardSize(2, 1, 1)
    assert union([hashes, hashes[:1], np.array([2], np.uint64)]).tolist() == sorted(
        {*hashes.tolist(), 2}
    )
    (tmp_path / "new/block").write_bytes((tmp_path / "new/block").read_bytes()[:-1])
    with pytest.raises(InputError, match="is damaged"):
        read_block(epath.Path(tmp_path / "new/block"), with_tokens=True)
