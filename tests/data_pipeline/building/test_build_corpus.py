"""The command: the corpus is the same however it is built, and mistakes are one-line errors."""

import csv
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.ipc
import pytest
from memory_stores import memory_stores

from data_pipeline import build_corpus, locks
from data_pipeline.build_corpus import BAD_INPUT, DONE, main
from data_pipeline.build_flags import define_flags, read_build_config
from data_pipeline.building.builder import CorpusBuilder
from data_pipeline.building.config import BuildConfig
from data_pipeline.building.deduplication import SeenHashes
from data_pipeline.building.selection.hashes import hash_documents
from data_pipeline.building.splits.blocks import block_file
from data_pipeline.building.splits.held_out import is_held_out
from data_pipeline.config import DataConfig
from data_pipeline.corpus.reader import open_corpus
from data_pipeline.locks import lock
from data_pipeline.planning.plan import open_plan
from data_pipeline.sources.documents import Source, SourceFormat

SYLLABLES = [a + b for a in "bdfgklmnprst" for b in "aeiou"]

# Runs the command in small steps, as its own process: argv[1] is which journal entry to die after.
SMALL_STEPS = """
import os, resource, signal, sys
from data_pipeline import build_corpus
from data_pipeline.building import builder, journal, parts
parts._BLOCK_CHARACTERS = 5000
builder._BLOCKS_PER_SAVE = 2
fatal, limit = int(sys.argv[1]), int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
save = journal.Journal.save
def save_and_die(entry, directory):
    global fatal
    save(entry, directory)
    fatal -= 1
    if not fatal:
        os.kill(os.getpid(), signal.SIGKILL)
journal.Journal.save = save_and_die
sys.exit(build_corpus.main(["build_corpus", *sys.argv[3:]]))
"""


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Write two files of 60 documents each, whose sentences are long and all different."""
    random = np.random.default_rng(1)
    words = ["".join(random.choice(SYLLABLES, n)) for n in random.integers(1, 4, 200)]
    directory = tmp_path_factory.mktemp("text")
    for name in ("a.txt", "b.txt"):
        documents = [
            "\n".join(
                " ".join(f"{' '.join(random.choice(words, 12)).capitalize()}." for _ in range(3))
                for _ in range(random.integers(1, 6))
            )
            for _ in range(60)
        ]
        (directory / name).write_text("\n\n".join(documents) + "\n")
    return directory


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    """Write a vocabulary of all syllables."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *SYLLABLES]
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join([*tokens, *(f"##{token}" for token in SYLLABLES)]) + "\n")
    return path


def arguments(text, vocabulary, output, *more):
    return [
        "build_corpus",
        f"--input={text}/*.txt",
        "--format=text",
        f"--output_dir={output}",
        f"--tokenizer={vocabulary}",
        "--held_out=0.2",
        "--num_processes=1",
        *more,
    ]


def files_of(corpus: Path) -> dict[str, bytes]:
    return {str(f.relative_to(corpus)): f.read_bytes() for f in corpus.rglob("*") if f.is_file()}


def read_documents(corpus, split):
    tokenizer = corpus.load_tokenizer()
    documents = []
    for shard in corpus.splits[split].shards:
        for begin, end in itertools.pairwise(shard.document_offsets):
            spans = itertools.pairwise(shard.sentence_offsets[begin : end + 1])
            documents.append([tokenizer.decode(shard.tokens[a:b].tolist()) for a, b in spans])
    return documents


@pytest.fixture(scope="module")
def built(text, vocabulary, tmp_path_factory):
    output = tmp_path_factory.mktemp("built") / "corpus"
    assert main(arguments(text, vocabulary, output)) == DONE
    return output


def test_all_text_is_there_in_order_and_split_by_its_hash(text, built):
    corpus = open_corpus(built)
    train, validation = (read_documents(corpus, split) for split in ("train", "validation"))
    raw = "\n\n".join((text / name).read_text().strip() for name in ("a.txt", "b.txt"))
    documents = [document.split("\n") for document in raw.split("\n\n")]
    held_out = is_held_out(hash_documents(documents), 0.2)
    for split, wanted in ((train, ~held_out), (validation, held_out)):
        joined = [" ".join(document).replace(" .", ".") for document in split]
        expected = [
            " ".join(document).lower()
            for document, take in zip(documents, wanted, strict=True)
            if take
        ]
        assert joined == expected
    assert 10 < len(validation) < 40
    sentences = [sentence for document in train for sentence in document]
    # The splitter takes a few of the made-up words ("no.") for abbreviations.
    assert len(sentences) > 0.97 * sum(sentence.count(".") for sentence in sentences)
    assert all(sentence.endswith(" .") for sentence in sentences)


def test_metadata_describes_the_build(built):
    metadata = open_corpus(built).metadata
    report = metadata.report
    assert metadata.sources[0].name == "text"
    assert metadata.settings["held_out"] == 0.2
    assert report["unknown_rate"] == 0
    assert report["tokens_per_document"] > 30
    assert 0 < report["row_fill_512"] < 1
    assert 0.9 < report["coverage_128"] < report["coverage_512"] <= 1
    assert metadata.cuts_long_sentences
    assert next(iter(report["most_frequent_pieces"])) == "."
    assert set(metadata.versions) == {"python", "numpy", "sentencepiece", "sentencex"}
    assert not built.with_name("corpus.partial").exists()


def test_report_is_printed(text, vocabulary, tmp_path, capsys):
    assert main(arguments(text, vocabulary, tmp_path / "corpus")) == DONE
    printed, suggested = capsys.readouterr()
    for word in (
        "documents",
        "sentences",
        "tokens a document",
        "unknown",
        "row of 512",
        "an epoch reads",
        "frequent",
    ):
        assert word in printed
    assert suggested.splitlines()[-1] == (
        "next: python -m experiments.pretrain --config=albert_small_wiki "
        f"--config.data.corpus_dir={tmp_path}/corpus --workdir=runs/corpus"
    )


@pytest.mark.parametrize(
    "document",
    [
        lambda sentences: f'Ba da 5" long. {" ".join(sentences)} Ta ka 6" deep.',
        lambda sentences: " ".join(sentences).replace(".", "").lower(),
    ],
    ids=["two inch marks", "no punctuation"],
)
def test_text_that_is_not_split_is_read(document, vocabulary, tmp_path, capsys):
    random = np.random.default_rng(2)

    def sentence() -> str:
        return f"{' '.join(random.choice(SYLLABLES, random.integers(5, 12))).capitalize()}."

    documents = [document([sentence() for _ in range(120)]) for _ in range(60)]
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": d}) + "\n" for d in documents))
    command = ["build_corpus", f"--input={tmp_path}/text.jsonl", "--format=jsonl", "--held_out=0"]
    output = tmp_path / "corpus"
    assert main([*command, f"--tokenizer={vocabulary}", f"--output_dir={output}"]) == DONE
    corpus = open_corpus(output)
    assert corpus.metadata.report["coverage_128"] > 0.94
    assert "warning" not in capsys.readouterr().out
    assert corpus.splits["train"].num_sentences > 60 * 60
    plan = open_plan(corpus, "train", DataConfig(max_seq_length=128))
    assert plan.coverage > 0.94


def test_low_coverage_is_reported(vocabulary, tmp_path, capsys):
    """Paragraphs of one sentence, somewhat shorter than a row."""
    lines = [" ".join(np.random.default_rng(n).choice(SYLLABLES, 300)) for n in range(40)]
    (tmp_path / "a.txt").write_text("\n".join(lines) + "\n")
    assert main(arguments(tmp_path, vocabulary, tmp_path / "corpus", "--held_out=0")) == DONE
    assert open_corpus(tmp_path / "corpus").metadata.report["coverage_512"] < 0.95
    assert "warning: sentences are long for rows of 512" in capsys.readouterr().out


def test_parts_of_an_overlong_sentence_are_held_out_as_one(vocabulary, tmp_path):
    """If training has such a sentence too, validation keeps none of its short parts."""
    random = np.random.default_rng(3)
    long = ", ".join(" ".join(random.choice(SYLLABLES, 4)) for _ in range(200))
    documents = [f"{long}.\nBa da {' '.join(random.choice(SYLLABLES, 20))}." for _ in range(40)]
    (tmp_path / "a.txt").write_text("\n\n".join(documents) + "\n")
    assert main(arguments(tmp_path, vocabulary, tmp_path / "corpus", "--held_out=0.3")) == DONE
    corpus = open_corpus(tmp_path / "corpus")
    train, validation = (read_documents(corpus, split) for split in ("train", "validation"))
    assert len(validation) > 5 and {len(document) for document in validation} == {1}
    assert {len(document) > 50 for document in train} == {True}


def run(*command):
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, check=False
    )


def test_two_processes_build_the_same(text, vocabulary, tmp_path, built):
    command = arguments(text, vocabulary, tmp_path / "corpus", "--num_processes=2")
    # Small chunks, so that both processes have work.
    done = run("-c", SMALL_STEPS, 0, 0, *command[1:])
    assert done.returncode == DONE, done.stderr
    assert files_of(tmp_path / "corpus") == files_of(built)


def test_killed_builds_resume_to_the_same_corpus(text, vocabulary, tmp_path, built):
    output = tmp_path / "corpus"
    command = arguments(text, vocabulary, output)[1:]
    for fatal in (1, 3, 2):  # before any text, then after some, then after some more
        done = run("-c", SMALL_STEPS, fatal, "0", *command)
        assert done.returncode == -signal.SIGKILL
        assert not output.exists()
    assert "Resuming the build" in done.stderr
    journal = json.loads((tmp_path / "corpus.partial/work/journal.json").read_text())
    assert journal["blocks"] == 8
    # What was written after the last entry of the journal is cut off, or written again.
    work = tmp_path / "corpus.partial/work"
    with (work / "new.hashes").open("ab") as file:
        file.write(b"garbage!")
    block_file(work / "blocks", 8).write_bytes(b"garbage")
    shard = tmp_path / "corpus.partial/corpus/train/shard-00000"
    shard.mkdir(parents=True)
    (shard / "tokens.bin").write_bytes(b"garbage")
    done = run("-c", SMALL_STEPS, 0, "0", *command)
    assert done.returncode == DONE, done.stderr
    assert files_of(output) == files_of(built)


def test_builds_of_tables_and_data_sets_resume(text, vocabulary, tmp_path):
    documents = (text / "a.txt").read_text().strip().split("\n\n")
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "body"), *enumerate(documents)])
    table = pyarrow.table({"text": (text / "b.txt").read_text().strip().split("\n\n")})
    with pyarrow.ipc.new_stream(tmp_path / "b.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "b.arrow"}]}')

    def command(output):
        flags = arguments(text, vocabulary, output)[1:]
        kept = [flag for flag in flags if not flag.startswith(("--input", "--format"))]
        return [*kept, f"--source=a:1:csv:{tmp_path}/a.csv", f"--source=b:2:huggingface:{tmp_path}"]

    assert main(["build_corpus", *command(tmp_path / "whole")]) == DONE
    assert run("-c", SMALL_STEPS, 4, "0", *command(tmp_path / "resumed")).returncode < 0
    done = run("-c", SMALL_STEPS, 0, "0", *command(tmp_path / "resumed"))
    assert done.returncode == DONE and "Resuming the build" in done.stderr
    assert files_of(tmp_path / "resumed") == files_of(tmp_path / "whole")
    metadata = open_corpus(tmp_path / "whole").metadata
    assert [source.weight for source in metadata.sources] == [1, 2]
    assert [source["text_column"] for source in metadata.settings["sources"]] == ["body", "text"]
    counts = [
        source.counts[split]["documents"]
        for source in metadata.sources
        for split in ("train", "validation")
    ]
    assert sum(counts) == 120 and min(counts) > 3


def test_a_full_disk_is_a_one_line_error_and_the_build_resumes(text, vocabulary, tmp_path, built):
    command = arguments(text, vocabulary, tmp_path / "corpus")[1:]
    done = run("-c", SMALL_STEPS, 0, "9000", *command)
    assert done.returncode == BAD_INPUT
    error = done.stderr.splitlines()[-1]
    assert error.startswith("error: [Errno 27] File too large")
    assert "not a corpus yet" in error
    assert not (tmp_path / "corpus").exists()
    assert run("-c", SMALL_STEPS, 0, "0", *command).returncode == DONE
    assert files_of(tmp_path / "corpus") == files_of(built)


def test_other_settings_start_over_with_a_reason(text, vocabulary, tmp_path, built):
    output = tmp_path / "corpus"
    command = arguments(text, vocabulary, output)[1:]
    assert run("-c", SMALL_STEPS, 3, "0", *command, "--held_out=0.1").returncode < 0
    done = run("-c", SMALL_STEPS, 0, "0", *command)
    assert done.returncode == DONE
    assert "Starting over" in done.stderr
    assert "held_out was 0.1 and is 0.2" in done.stderr
    assert files_of(output) == files_of(built)


def test_training_a_vocabulary_is_reproducible(text, tmp_path):
    for name in ("one", "two"):
        command = arguments(text, None, tmp_path / name)
        command = [flag for flag in command if not flag.startswith("--tokenizer")]
        assert main([*command, "--vocab_size=120", "--vocabulary_bytes=30000"]) == DONE
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    assert open_corpus(tmp_path / "one").metadata.vocab_size == 120


def test_duplicates_are_dropped_and_no_held_out_sentence_is_trained_on(vocabulary, tmp_path, built):
    """Added text repeats documents and quotes held-out sentences."""
    corpus = open_corpus(built)
    held_out = read_documents(corpus, "validation")
    quoted = [document[0] for document in held_out]
    short = "ba da fa."
    # A document of which nothing is left, one that keeps its short sentence, and quoting text.
    documents = [*map(" ".join, held_out), "\n".join([*quoted, short]), *map(" ".join, held_out)]
    (tmp_path / "more.txt").write_text("\n\n".join(documents) + "\n")
    command = arguments(tmp_path, vocabulary, tmp_path / "more", "--held_out=0.5")
    assert main(command) == DONE
    more = open_corpus(tmp_path / "more")
    train, validation = (read_documents(more, split) for split in ("train", "validation"))
    report = more.metadata.report
    assert report["duplicate_documents"] == len(held_out)
    assert report["held_out_sentences_removed"] > 0
    long_sentences = {sentence for document in train for sentence in document if len(sentence) > 80}
    assert long_sentences
    assert not long_sentences & {sentence for document in validation for sentence in document}


def test_adding_text_moves_no_document_across(text, vocabulary, tmp_path, built):
    (tmp_path / "0.txt").write_text("Bada fa la ma.\n\nTo tu ti ta.\n")
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text((text / name).read_text())
    assert main(arguments(tmp_path, vocabulary, tmp_path / "more")) == DONE
    before, after = open_corpus(built), open_corpus(tmp_path / "more")
    for split in ("train", "validation"):
        documents = read_documents(after, split)
        assert [d for d in documents if d[0] not in ("bada fa la ma .", "to tu ti ta .")] == (
            read_documents(before, split)
        )


def test_several_sources_are_counted_apart(text, vocabulary, tmp_path):
    (tmp_path / "b.jsonl").write_text(
        "\n".join(json.dumps({"text": f"Ba {'da ' * n} fa."}) for n in range(1, 40))
    )
    command = arguments(text, vocabulary, tmp_path / "corpus")
    command = [flag for flag in command if not flag.startswith(("--input", "--format"))]
    more = (f"--source=wiki:1:text:{text}/a.txt", f"--source=notes:2.5:jsonl:{tmp_path}/b.jsonl")
    assert main([*command, *more]) == DONE
    metadata = open_corpus(tmp_path / "corpus").metadata
    assert [(source.name, source.weight) for source in metadata.sources] == [
        ("wiki", 1.0),
        ("notes", 2.5),
    ]
    totals = [sum(s["documents"] for s in source.counts.values()) for source in metadata.sources]
    assert totals == [60, 39]
    assert all(source.counts["validation"]["documents"] for source in metadata.sources)


def test_an_existing_corpus_is_replaced_only_with_overwrite(text, vocabulary, tmp_path, capsys):
    output = tmp_path / "corpus"
    output.mkdir()
    (output / "precious").write_text("data")
    command = arguments(text, vocabulary, output)
    for more, message in (
        ([], "exists already; --overwrite"),
        (["--overwrite"], "is not a corpus"),
    ):
        assert main([*command, *more]) == BAD_INPUT
        assert message in capsys.readouterr().err
        assert files_of(output) == {"precious": b"data"}
    (output / "metadata.json").write_text("{}")
    assert main(command) == BAD_INPUT
    assert main([*command, "--overwrite"]) == DONE
    assert "precious" not in files_of(output)
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_two_builds_of_one_corpus_do_not_mix(text, vocabulary, tmp_path, capsys):
    output = tmp_path / "corpus"
    (tmp_path / "corpus.partial").mkdir()
    with lock(tmp_path / "corpus.partial", "build"):
        assert main(arguments(text, vocabulary, output)) == BAD_INPUT
    assert f"in use by another build (host {os.uname().nodename}" in capsys.readouterr().err
    assert main(arguments(text, vocabulary, output)) == DONE


def test_a_remote_corpus_is_published(text, vocabulary, tmp_path, monkeypatch, built, capsys):
    """It is built from remote files. A build that was stopped while copying is not repeated."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(locks, "SETTLING_SECONDS", 0.02)
    with memory_stores(monkeypatch) as store:
        for name in ("a.txt", "b.txt"):
            store().pipe(f"s3://b/text/{name}", (text / name).read_bytes())
        command = arguments("s3://b/text", vocabulary, "gs://b/store")
        with monkeypatch.context() as stopping, pytest.raises(KeyError):
            stopping.setattr(build_corpus, "publish", lambda *_: {}["stopped"])
            main(command)
        with monkeypatch.context() as building:
            building.setattr(CorpusBuilder, "build", None)
            assert main(command) == DONE
        assert "--config.data.corpus_dir=gs://b/store" in capsys.readouterr().err.splitlines()[-1]
        assert main(command) == BAD_INPUT
        assert "gs://b/store holds a corpus already" in capsys.readouterr().err
        store().get("gs://b/store/", str(tmp_path / "store"), recursive=True)
        assert main([*command, "--overwrite"]) == DONE
    assert files_of(tmp_path / "store").keys() == files_of(built).keys()
    assert open_corpus(tmp_path / "store").metadata.files == open_corpus(built).metadata.files
    assert not any((tmp_path / "cache/albert_jax/builds").iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--input=absent/*"], "--input=absent/*: no file matches"),
        (["--vocab_size=many"], "--vocab_size"),
        (["--vocab_sise=5"], "vocab_sise"),
        (["--vocab_size=5"], "--vocab_size must be a whole number in [14, "),
        (["--held_out=1"], "--held_out must be a number in [0, 1), got 1.0"),
        (["--language=English"], "--language must be an ISO code"),
        (["--format=word"], "--format"),
        (["--format=docstrings"], "--format=docstrings takes no --input"),
        (["--source=a:1:text:x"], "--source takes the place of --input"),
        (["--tokenizer=absent.model"], "tokenizer absent.model does not exist"),
        (["--output_dir="], "--output_dir is missing"),
        (["stray"], "'stray' is no flag"),
    ],
)
def test_mistakes_are_one_line_and_status_2(text, vocabulary, tmp_path, capsys, flags, message):
    command = arguments(text, vocabulary, tmp_path / "corpus")
    names = {flag.split("=")[0] for flag in flags}
    kept = [flag for flag in command if flag.split("=")[0] not in names]
    assert main([*kept, *flags]) == BAD_INPUT
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "corpus").exists()


def test_beam_is_an_extra(text, vocabulary, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    command = arguments(text, vocabulary, tmp_path / "corpus", "--engine=beam")
    assert main(command) == BAD_INPUT
    error = capsys.readouterr().err
    assert error.startswith(
        "error: --engine=beam needs Apache Beam: pip install 'albert-jax[beam]'"
    )
    assert error.count("\n") == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("a:1", "NAME:WEIGHT:FORMAT:INPUT, got 'a:1'"),
        ("a:-1:text:x", "the weight must be a positive number, got '-1'"),
        ("a:1:word:x", "the format must be one of text, sentences"),
        ("a:1:text", "--format=text needs input files"),
    ],
)
def test_mistakes_in_sources(tmp_path, capsys, source, message):
    assert main(["build_corpus", f"--source={source}", f"--output_dir={tmp_path}/c"]) == BAD_INPUT
    assert message in capsys.readouterr().err


def test_input_without_text_is_rejected(vocabulary, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("\n \n")
    assert main(arguments(tmp_path, vocabulary, tmp_path / "corpus")) == BAD_INPUT
    assert "holds no text for training" in capsys.readouterr().err


def test_help_names_every_flag(capsys):
    assert main(["build_corpus", "--help"]) == DONE
    printed = capsys.readouterr().out
    assert all(f"--{name}" in printed or f"--[no]{name}" in printed for name in define_flags())


def test_flags_have_the_defaults_of_the_dataclass():
    source = Source("text", SourceFormat.TEXT, ("a.txt",))
    values = define_flags()
    values(["build_corpus", "--input=a.txt", "--format=text", "--output_dir=c"])
    config = read_build_config(values)
    assert config == BuildConfig((source,), "c")
    assert config.num_processes >= 1  # 0, the default, means one per core
    others = define_flags()
    others(["build_corpus", "--vocab_size=99"])
    assert (values.vocab_size, others.vocab_size) == (30_000, 99)


def test_seen_hashes_agree_with_a_set():
    random = np.random.default_rng(0)
    seen, expected = SeenHashes(), set()
    for size in (5, 100, 0, 1, 3000, 40, 7):
        hashes = random.integers(0, 2000, size).astype(np.uint64)
        for hash, is_new in zip(hashes.tolist(), seen.add(hashes).tolist(), strict=True):
            assert is_new == (hash not in expected)
            expected.add(hash)
