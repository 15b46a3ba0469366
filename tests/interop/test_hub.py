"""Models go to and from a stand-in for the Hugging Face Hub, by the commands themselves."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_server import TOKEN, Hub
from tiny_models import THREE, make_model, random_params

from data_pipeline import AlbertTokenizer
from data_pipeline.tokenizers.wordpiece import WordPieceTokenizer

pytestmark = pytest.mark.interop

ROOT = Path(__file__).parents[2]
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "and", ",", "3")
BY_HAND = "`hf download me/{} --local-dir DIR` gets it where there is a connection, and DIR"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    classifier = make_model("ForSequenceClassification", {}, THREE)
    tokenizer = AlbertTokenizer(WordPieceTokenizer(WORDS))
    classifier.save_pretrained(tmp_path / "model", random_params(classifier), tokenizer)
    return tmp_path / "model"


@pytest.fixture
def run(hub: Hub, tmp_path: Path) -> Run:
    def run(module: str, *flags: str, **changes: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, "-m", f"experiments.{module}", *flags]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=environment | changes
        )

    return run


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a command that ended with status 2."""
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.stderr
    return line


def test_a_model_is_uploaded_and_read_by_its_name(hub: Hub, model: Path, run: Run) -> None:
    convert = (f"--from={model}", "--to=huggingface", "--push_to_hub=me/tiny")
    assert "needs a token" in error_of(run("convert", *convert, "--output=a"))
    assert hub.models == {} and not (model.parent / "a").exists()

    done = run("convert", *convert, "--output=a", HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "uploaded to me/tiny, which is private"
    assert hub.private == {"me/tiny"}
    files = {file.name: file.read_bytes() for file in (model.parent / "a").iterdir()}
    assert hub.models["me/tiny"] == files | {".gitattributes": b""}
    assert b'from_pretrained("me/tiny")' in files["README.md"]

    hub.models["me/tiny"]["README.md"] = b"written by hand"
    done = run("convert", *convert, "--output=b", HF_TOKEN=TOKEN)
    assert done.stdout.splitlines()[-1].endswith("its README.md was left as it was")
    assert hub.models["me/tiny"]["README.md"] == b"written by hand"

    refused = run("convert", *convert, "--output=c", HF_TOKEN="hf_wrong")
    assert "c is written, but not uploaded to me/tiny (" in error_of(refused)

    hub.models["me/tiny"] |= {"pytorch_model.bin": b"pickle", "more/config.json": b"{}"}
    hub.requests.clear()
    predict = ("--task=classify", "--model=me/tiny", "--text=the cat sat")
    expected = run("predict", *predict[:1], f"--model={model}", *predict[2:])
    done = run("predict", *predict)
    assert done.returncode == 0, done.stderr
    assert done.stdout == expected.stdout and "two" in done.stdout
    fetched = {one.rpartition("/")[2] for one in hub.requests if one.startswith("GET /me/")}
    assert fetched == files.keys() - {"README.md"}
    offline = run("predict", *predict, HF_HUB_OFFLINE="1")  # from the cache
    assert offline.stdout == expected.stdout


def test_weights_are_published_only_if_that_is_said(hub: Hub, model: Path, run: Run) -> None:
    convert = (f"--from={model}", "--to=huggingface", "--push_to_hub=me/open")
    hub.models["me/open"] = {".gitattributes": b""}
    line = error_of(run("convert", *convert, "--output=a", HF_TOKEN=TOKEN))
    assert "me/open on the hub is visible to all; --private=false publishes there" in line
    assert hub.models == {"me/open": {".gitattributes": b""}}

    for name in ("open", "new"):
        flags = (*convert[:2], f"--push_to_hub=me/{name}", f"--output={name}", "--private=false")
        done = run("convert", *flags, HF_TOKEN=TOKEN)
        assert done.stdout.splitlines()[-1] == f"uploaded to me/{name}", done.stderr
        assert "model.safetensors" in hub.models[f"me/{name}"]
    assert hub.private == set()


def test_what_cannot_be_downloaded_is_one_line(hub: Hub, run: Run) -> None:
    predict = ("--task=classify", "--text=the cat sat")
    line = error_of(run("predict", *predict, "--model=me/none"))
    assert "(RepositoryNotFoundError: 404" in line and BY_HAND.format("none") in line
    line = error_of(run("predict", *predict, "--model=me/none", HF_HUB_OFFLINE="1"))
    assert "no directory me/none" in line and BY_HAND.format("none") in line
    closed = run("predict", *predict, "--model=me/none", HF_ENDPOINT="http://127.0.0.1:9")
    assert BY_HAND.format("none") in error_of(closed)
    hub.models["me/pickled"] = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
    line = error_of(run("convert", "--from=me/pickled", "--to=orbax", "--output=a"))
    assert "me/pickled on the hub has no .safetensors" in line and BY_HAND.format("pickled") in line
    assert not [one for one in hub.requests if one.endswith(".bin")]
