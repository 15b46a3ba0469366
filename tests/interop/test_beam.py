"""Jobs of Apache Beam build the same corpus as one machine, or refuse."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from memory_stores import memory_stores

from data_pipeline import locks
from data_pipeline.build_corpus import BAD_INPUT, DONE, main
from data_pipeline.building import finishing, parts
from data_pipeline.corpus.reader import open_corpus

pytest.importorskip("apache_beam", reason="the extra beam is not installed")

from data_pipeline.building.beam import job, pipelines, planning, steps

pytestmark = [
    pytest.mark.interop,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

WORDS = [a + b for a in "bdfgklmnprst" for b in "aeiou"]

# A filter that ends its process while a file is there, which it removes.
DEADLY = """
import os
from pathlib import Path
def check(text, source):
    if source == "b" and Path({flag!r}).exists():
        Path({flag!r}).unlink(missing_ok=True)
        os._exit(9)
    return True if "ba da" not in text else "ba da"
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Write three formats, with duplicates, held-out sentences in training, and empty documents."""
    directory, random = tmp_path_factory.mktemp("inputs"), np.random.default_rng(0)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS]
    lines = [*tokens, *(f"##{word}" for word in WORDS)]
    (directory / "vocab.txt").write_text("\n".join(lines) + "\n")

    def sentence():
        return f"{' '.join(random.choice(WORDS, random.integers(4, 20))).capitalize()}."

    documents = [[sentence() for _ in range(random.integers(1, 7))] for _ in range(240)]
    for number in random.integers(0, 240, 60):
        documents.append(documents[number])
        documents.append([*documents[number][:1], sentence(), "\x07"])
    documents += [["\x07"], ["\x07"]]
    order = random.permutation(len(documents))
    thirds = np.array_split(order, 3)
    texts = [["\n".join(documents[number]) for number in third] for third in thirds]
    half = len(texts[0]) // 2
    (directory / "a1.txt").write_text("\n\n".join(texts[0][:half]) + "\n")
    (directory / "a2.txt").write_text("\n\n".join(texts[0][half:]))
    records = [json.dumps({"text": text}) for text in texts[1]]
    (directory / "b.jsonl").write_text("\n".join(records))
    pyarrow.parquet.write_table(pyarrow.table({"body": texts[2]}), directory / "c.parquet")
    return directory


def arguments(inputs, output, *more):
    return [
        "build_corpus",
        f"--source=a:1:text:{inputs}/a*.txt",
        f"--source=b:2:jsonl:{inputs}/b.jsonl",
        f"--source=c:1:parquet:{inputs}/c.parquet",
        f"--output_dir={output}",
        f"--tokenizer={inputs}/vocab.txt",
        "--held_out=0.2",
        "--num_processes=1",
        *more,
    ]


def on_beam(inputs, output, *more):
    return arguments(inputs, output, "--engine=beam", *more)


def files_of(corpus: Path) -> dict[str, bytes]:
    return {str(f.relative_to(corpus)): f.read_bytes() for f in corpus.rglob("*") if f.is_file()}


@pytest.fixture(scope="module")
def built(inputs, tmp_path_factory):
    output = tmp_path_factory.mktemp("built") / "corpus"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finishing, "MAX_SHARD_BYTES", 4000)
        assert main(arguments(inputs, output)) == DONE
    metadata = open_corpus(output).metadata
    assert metadata.report["duplicate_documents"] > 40
    assert metadata.report["held_out_sentences_removed"] > 5
    assert metadata.splits["train"]["shards"] > 4 and metadata.splits["validation"]["shards"] > 1
    return output


@pytest.fixture
def small(monkeypatch):
    """Cut the input into many parts, blocks and shards, and files of records into small ones."""
    monkeypatch.setattr(finishing, "MAX_SHARD_BYTES", 4000)
    monkeypatch.setattr(parts, "_BLOCK_CHARACTERS", 1500)
    monkeypatch.setattr(planning, "PART_BYTES", 3000)
    for module in (planning, steps, job):
        monkeypatch.setattr(module, "PARTS_PER_FILE", 3)
        monkeypatch.setattr(module, "SHARDS_PER_FILE", 2, raising=False)


def test_three_formats_become_the_same_corpus(inputs, built, small, tmp_path):
    output = tmp_path / "corpus"
    repeated = "--beam_options=--direct_runner_bundle_repeat=1"
    assert main(on_beam(inputs, output, repeated)) == DONE
    assert files_of(output) == files_of(built)
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_a_vocabulary_is_trained_on_the_same_sample(inputs, small, tmp_path):
    flags = ("--vocab_size=90", "--vocabulary_bytes=20000")
    for name, command in (("local", arguments), ("beam", on_beam)):
        given = [f for f in command(inputs, tmp_path / name) if not f.startswith("--tokenizer")]
        assert main([*given, *flags]) == DONE
    assert files_of(tmp_path / "beam") == files_of(tmp_path / "local")


def test_a_worker_that_dies_changes_nothing(inputs, tmp_path):
    """One of two processes ends; repeating the same command resumes the build."""
    flag, rules = tmp_path / "deadly", tmp_path / "deadly_rules.py"
    rules.write_text(DEADLY.format(flag=str(flag)))
    environment = {**os.environ, "PYTHONPATH": f"{Path.cwd()}:{tmp_path}"}
    command = [sys.executable, "-m", "data_pipeline.build_corpus"]
    chosen = "--filter=deadly_rules:check"

    def run(*flags):
        return subprocess.run(
            [*command, *flags[1:]],
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    done = run(*arguments(inputs, tmp_path / "local", chosen))
    assert done.returncode == DONE, done.stderr
    flag.touch()
    beam = on_beam(inputs, tmp_path / "beam", chosen, "--num_processes=2")
    died = run(*beam)
    assert not flag.exists()
    if died.returncode != DONE:
        assert died.returncode == BAD_INPUT, died.stderr
        assert "the Beam job" in died.stderr.splitlines()[-1]
        assert not (tmp_path / "beam").exists()
        done = run(*beam)
        assert done.returncode == DONE, done.stderr
    assert files_of(tmp_path / "beam") == files_of(tmp_path / "local")


def change(path: Path) -> None:
    """Change a letter of a file, but neither its size nor its time."""
    status, data = path.stat(), path.read_bytes()
    path.write_bytes(data.replace(b" ba ", b" be ", 1))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("is_seen", [True, False], ids=["its time", "its content alone"])
def test_a_file_that_changes_meanwhile_is_named(
    inputs, built, small, tmp_path, monkeypatch, capsys, is_seen
):
    copies = tmp_path / "inputs"
    copies.mkdir()
    for file in inputs.iterdir():
        (copies / file.name).write_bytes(file.read_bytes())
    hash = pipelines.Jobs.hash

    def hash_and_change(*arguments):
        hash(*arguments)
        with contextlib.suppress(FileNotFoundError):
            change(copies / "b.jsonl")
            if is_seen:
                os.utime(copies / "b.jsonl")

    command = on_beam(copies, tmp_path / "corpus")
    with monkeypatch.context() as patch:
        patch.setattr(pipelines.Jobs, "hash", hash_and_change)
        assert main(command) == BAD_INPUT
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{copies}/b.jsonl has changed since" in error
    assert not (tmp_path / "corpus").exists()


def test_workers_of_other_versions_refuse(inputs, built, small, tmp_path, monkeypatch, capsys):
    versions = job.program_versions

    def other(names):
        found = dict(versions(names))
        return tuple((found | {"pyarrow": "1.0"}).items())

    monkeypatch.setattr(job, "program_versions", other)
    output = tmp_path / "corpus"
    assert main(on_beam(inputs, output)) == BAD_INPUT
    error = capsys.readouterr().err.splitlines()[-1]
    assert "a worker has another pyarrow (1.0) than the build was started with" in error
    monkeypatch.undo()
    monkeypatch.setattr(finishing, "MAX_SHARD_BYTES", 4000)
    assert main(on_beam(inputs, output)) == DONE
    assert files_of(output) == files_of(built)


def test_faults_of_the_input_are_one_line_with_its_place(inputs, small, tmp_path, capsys):
    (tmp_path / "b.jsonl").write_text('{"text": "Ba da."}\n' * 400 + "{\n")
    command = on_beam(inputs, tmp_path / "c")
    command[2] = f"--source=b:1:jsonl:{tmp_path}/b.jsonl"
    assert main(command) == BAD_INPUT
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: the Beam job hash failed: ")
    assert f"{tmp_path}/b.jsonl:401: " in error


def test_an_option_is_written_as_one(inputs, tmp_path, capsys):
    assert main(on_beam(inputs, tmp_path / "c", "--beam_options=region=x")) == BAD_INPUT
    assert "--beam_options=region=x: an option of Beam is written" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_corpus_is_built_on_a_store(inputs, built, small, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(locks, "SETTLING_SECONDS", 0.02)
    with memory_stores(monkeypatch) as store:
        for name in ("a1.txt", "a2.txt", "b.jsonl", "c.parquet"):
            store().pipe(f"s3://b/text/{name}", (inputs / name).read_bytes())
        command = [
            flag.replace(f":{inputs}", ":s3://b/text") for flag in on_beam(inputs, "gs://b/store")
        ]
        assert main(command) == DONE
        assert main(command) == BAD_INPUT
        store().pipe("gs://b/store/train/shard-99999/tokens.bin", b"of an earlier corpus")
        assert main([*command, "--overwrite"]) == DONE
        store().get("gs://b/store/", str(tmp_path / "store"), recursive=True)
        assert not store().find("gs://b/store.partial")
    assert open_corpus(tmp_path / "store").metadata.files == open_corpus(built).metadata.files
