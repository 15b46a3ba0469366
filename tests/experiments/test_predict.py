"""Prediction: [MASK], embeddings, sentence order, and rejected inputs."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import TINY, random_params
from tiny_vocabularies import WORDPIECES, trained

from albert_jax import (
    AlbertForMaskedLM,
    AlbertForPreTraining,
    AlbertModel,
    HeadConfig,
    Pooling,
    ProblemType,
)
from albert_jax.devices.mesh import make_mesh
from albert_jax.interop.names import WeightsError
from data_pipeline import AlbertTokenizer
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.wordpiece import WordPieceTokenizer
from experiments.cli import command
from experiments.predict import TASKS, check_output, predict
from experiments.prediction.inputs import choose_inputs, inputs_from_flags, read_inputs
from experiments.tasks.raw_inputs import EncodedInput, PredictionOptions, RawInput
from experiments.tasks.registry import TASK_KINDS
from experiments.tasks.task_settings import TaskName

ROOT = Path(__file__).parents[2]
TOKENIZER = AlbertTokenizer(WordPieceTokenizer(WORDPIECES))
CONFIG = dataclasses.replace(TINY, vocab_size=len(WORDPIECES), max_position_embeddings=24)
TEXTS = ["the [MASK] hello x", "hello", "the hello [MASK], [MASK] (don't) the x the", "x e 2 0 1 x"]
FULL = AlbertForPreTraining(CONFIG)
PARAMS = random_params(FULL)
# Compiled: op by op, every operation would be compiled for every length.
APPLY_FULL, APPLY_ENCODER = jax.jit(FULL.apply), jax.jit(AlbertModel(CONFIG).apply)


@pytest.fixture(autouse=True)
def one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use one device: several are tested with inference, and would only cost time here."""
    mesh = make_mesh(devices=jax.devices()[:1])
    monkeypatch.setattr("experiments.prediction.inference.make_mesh", lambda: mesh)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    FULL.save_pretrained(path, PARAMS, TOKENIZER)
    return path


def examples(*texts: str, pairs: tuple[str, ...] = ()) -> list[RawInput]:
    return inputs_from_flags({"text": list(texts), "text_pair": list(pairs)})


def results(task: str, given: list[RawInput], model: Path, **options: Any) -> list[dict[str, Any]]:
    """The results in the order of the inputs."""
    numbered = dict(TASKS[task].predict(given, PredictionOptions(str(model), **options)))
    return [numbered[number] for number in range(len(given))]


def outputs_of(text: str, pair: str | None = None, **options: Any) -> Any:
    """The outputs for a text alone, without padding, and its inputs."""
    inputs = TOKENIZER(text, pair, **options)
    return APPLY_FULL({"params": PARAMS}, **inputs), inputs


def encoder_outputs_of(*texts: str, **options: Any) -> Any:
    """The encoder's outputs for a text or a pair alone."""
    return APPLY_ENCODER({"params": PARAMS["albert"]}, **TOKENIZER(*texts, **options))


def test_masks_are_filled_with_the_most_probable_tokens(saved):
    masked = [text for text in TEXTS if "[MASK]" in text]
    for text, result in zip(masked, results("fill-mask", examples(*masked), saved), strict=True):
        outputs, inputs = outputs_of(text, mask_words=True)
        positions = np.flatnonzero(inputs["input_ids"][0] == TOKENIZER.mask_id)
        assert result["text"] == text
        assert len(result["masks"]) == len(positions)
        for position, candidates in zip(positions, result["masks"], strict=True):
            probabilities = np.asarray(jax.nn.softmax(outputs.prediction_logits[0, position]))
            best = np.argsort(-probabilities, kind="stable")[:5]
            tokens = [WORDPIECES[id] for id in best]
            assert [candidate["piece"] for candidate in candidates] == tokens
            found = [candidate["probability"] for candidate in candidates]
            np.testing.assert_allclose(found, probabilities[best], rtol=1e-5)
    first = result["masks"][1][0]
    written = first["piece"].removeprefix("##")
    glued = first["piece"].startswith("##")
    beginning = "the hello [MASK]," + ("" if glued else " ") + written
    assert first["text"] == beginning + " (don't) the x the"


@pytest.mark.parametrize("pooling", Pooling)
def test_embeddings_do_not_depend_on_the_batch(saved, pooling):
    found = results("encode", examples(*TEXTS), saved, pooling=pooling)
    for text, result in zip(TEXTS, found, strict=True):
        outputs = encoder_outputs_of(text)
        expected = {
            Pooling.POOLED: outputs.pooler_output[0],
            Pooling.FIRST: outputs.last_hidden_state[0, 0],
            Pooling.MEAN: outputs.last_hidden_state[0].mean(0),
        }[pooling]
        np.testing.assert_allclose(result["embedding"], expected, rtol=2e-4, atol=1e-5)
        assert result["embedding"].dtype == np.float32


def test_only_pooled_embeddings_need_a_pooler(saved, tmp_path):
    model = AlbertForMaskedLM(CONFIG)
    encoder = {name: PARAMS["albert"][name] for name in ("embeddings", "encoder")}
    params = {"albert": encoder, "predictions": PARAMS["predictions"]}
    model.save_pretrained(tmp_path / "headless", params, TOKENIZER)
    for pooling in (Pooling.MEAN, Pooling.FIRST):
        found, expected = (
            results("encode", examples(*TEXTS[:1]), path, pooling=pooling)[0]["embedding"]
            for path in (tmp_path / "headless", saved)
        )
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(WeightsError, match="missing; --pooling=mean and --pooling=first need no"):
        results("encode", examples(*TEXTS), tmp_path / "headless", pooling=Pooling.POOLED)


def test_embeddings_of_pairs_and_in_half_precision(saved):
    pair = examples("the x", pairs=("hello",))
    (exact,) = results("encode", pair, saved)
    outputs = encoder_outputs_of("the x", "hello")
    np.testing.assert_allclose(exact["embedding"], outputs.pooler_output[0], rtol=2e-4, atol=1e-5)
    (coarse,) = results("encode", pair, saved, dtype=jnp.bfloat16)
    assert coarse["embedding"].dtype == np.float32
    assert 0 < np.abs(coarse["embedding"] - exact["embedding"]).max() < 0.1


def test_the_order_of_two_texts(saved):
    given = examples("the x", "hello", pairs=("hello the", "x"))
    for example, result in zip(given, results("sentence-order", given, saved), strict=True):
        outputs, _ = outputs_of(example.text(), example.text("text_pair"))
        in_order, swapped = jax.nn.softmax(outputs.sop_logits[0])
        assert result["in_order"] == pytest.approx(float(in_order), rel=1e-4)
        assert result["swapped"] == pytest.approx(float(swapped), rel=1e-4)
        text = TASKS["sentence-order"].format(result)
        assert ("swapped" in text) is bool(swapped > in_order)
        assert example.text("text_pair") in text


def test_of_several_labels_all_that_are_probable_are_given():
    head = HeadConfig(("a", "b", "c"), ProblemType.MULTI_LABEL)
    model, logits = SimpleNamespace(head=head), np.array([3.0, 0.1, -0.1], np.float32)
    decode = TASK_KINDS[TaskName.TEXT].predictions["classify"].decode
    given = EncodedInput(RawInput({"text": "x"}, "example 1"), [])
    found = decode(given, [{"logits": logits}], model, PredictionOptions("nowhere"))
    assert (found["text"], found["label"]) == ("x", ["a", "b"])
    expected = dict(zip("abc", 1 / (1 + np.exp(-logits)), strict=True))
    assert found["probabilities"] == pytest.approx(expected)


def test_output_is_in_order_as_json_embeddings_or_text(saved, tmp_path, capsys):
    options = PredictionOptions(str(saved), pooling=Pooling.FIRST)
    given = examples(*TEXTS)
    vectors = results("encode", given, saved, pooling=Pooling.FIRST)
    file = tmp_path / "vectors.npy"
    predict(TASKS["encode"], given, options, output=file, as_json=False)
    stored = np.load(file)
    assert stored.dtype == np.float32
    assert stored.shape == (len(TEXTS), CONFIG.hidden_size)
    np.testing.assert_array_equal(stored, [result["embedding"] for result in vectors])
    capsys.readouterr()
    predict(TASKS["encode"], given, options, output=None, as_json=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["text"] for line in lines] == TEXTS
    np.testing.assert_allclose([line["embedding"] for line in lines], stored, rtol=1e-6)
    masked = examples(TEXTS[2], TEXTS[0])
    predict(TASKS["fill-mask"], masked, options, output=tmp_path / "a.jsonl", as_json=False)
    written = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert written == results("fill-mask", masked, saved)
    predict(TASKS["fill-mask"], masked, options, output=None, as_json=False)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == TEXTS[2]
    assert shown[6].startswith("  [MASK] 2")
    assert shown[11] == TEXTS[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "vectors.npy"]


def test_an_error_in_the_middle_leaves_no_file(tmp_path):
    def stopping(*_: Any) -> Any:
        yield 0, {"embedding": np.zeros(3)}
        raise InputError("stopped")

    task = TASKS["encode"]._replace(predict=stopping)
    options = PredictionOptions("nowhere")
    with pytest.raises(InputError, match="stopped"):
        predict(task, examples("a", "b"), options, output=tmp_path / "a.npy", as_json=False)
    assert not list(tmp_path.iterdir())


LONG = "x " * 30


@pytest.mark.parametrize(
    ("task", "given", "message"),
    [
        ("fill-mask", examples("the [MASK]", "x"), r"example 2: there is no \[MASK\] in 'x'"),
        ("fill-mask", examples(f"[MASK] {LONG}"), "example 1: it has 33 tokens .* may have 24"),
        ("encode", examples("x", LONG), "example 2: .* shorten it or give --truncate"),
        ("encode", examples(" "), "example 1: text is empty"),
        ("sentence-order", examples("x"), "example 1: text_pair is missing"),
        ("encode", [RawInput({"text": 3}, "line 7")], "line 7: text must be a text, got 3"),
        ("encode", [RawInput({}, "line 7")], "line 7: text is missing"),
        ("encode", [RawInput({"text": "\ud800"}, "line 7")], "line 7: .* half a surrogate pair"),
    ],
)
def test_unusable_texts_are_rejected(task, given, message, saved):
    with pytest.raises(InputError, match=message):
        results(task, given, saved)


def test_long_texts_are_truncated_on_request(saved):
    (result,) = results("encode", examples(LONG), saved, truncate=True)
    outputs = encoder_outputs_of(LONG, truncation=True, max_length=24)
    np.testing.assert_allclose(result["embedding"], outputs.pooler_output[0], rtol=2e-4, atol=1e-5)
    with pytest.raises(InputError, match=r"no \[MASK\] is left of the truncated text"):
        results("fill-mask", examples(f"{LONG}[MASK]"), saved, truncate=True)


def test_unusable_models_are_rejected(saved, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="holds no weights"):
        results("encode", examples("x"), tmp_path / "empty")
    shutil.copytree(saved, tmp_path / "bare")
    for name in ("vocab.txt", "tokenizer.json"):
        (tmp_path / "bare" / name).unlink()
    with pytest.raises(InputError, match="there is no tokenizer in"):
        results("encode", examples("x"), tmp_path / "bare")
    shutil.copytree(saved, tmp_path / "other")
    (tmp_path / "other/spiece.model").write_bytes(trained().model)
    with pytest.raises(InputError, match=r"pad_token is '\[PAD\]', that of the vocabulary is"):
        results("encode", examples("x"), tmp_path / "other")
    for name in ("tokenizer_config.json", "special_tokens_map.json", "tokenizer.json"):
        (tmp_path / "other" / name).unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"other: its tokenizer has 300 tokens, its model 44"):
        results("encode", examples("x"), tmp_path / "other")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "is empty"),
        ("a.txt", b"caf\xe9\n", "is not UTF-8"),
        ("a.csv", b"a\n", r"must end in \.txt or \.jsonl"),
        ("a.jsonl", b'{"text": "a"}\n{\n', r"a\.jsonl:2: this is not JSON"),
        ("a.jsonl", b"[1]\n", r"a\.jsonl:1: expected a JSON object, got '\[1\]'"),
        (None, b"", "does not exist"),
    ],
)
def test_unusable_files_are_rejected(name, content, message, tmp_path):
    path = tmp_path / (name or "missing.txt")
    if name:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_inputs(path)


def test_text_files_and_json_lines(tmp_path):
    (tmp_path / "a.txt").write_bytes("one\u2028two\r\nthree".encode())
    found = read_inputs(tmp_path / "a.txt")
    assert [example.text() for example in found] == ["one\u2028two", "three"]
    assert found[1].source.endswith("a.txt:2")
    (tmp_path / "a.jsonl").write_text('{"text": "a", "text_pair": "b", "id": 7}\n')
    (example,) = read_inputs(tmp_path / "a.jsonl")
    assert example.fields == {"text": "a", "text_pair": "b", "id": 7}
    with pytest.raises(InputError, match="--text 2 times, --text_pair 1 times"):
        examples("a", "b", pairs=("c",))


def test_the_command_from_end_to_end(saved):
    """Flags, exit code and output."""
    arguments = ("--task=fill-mask", f"--model={saved}", "--text=the [MASK]", "--json", "--top_k=2")
    done = subprocess.run(
        [sys.executable, "-m", "experiments.predict", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["masks"][0]) == 2
    assert " of 8 tokens in " in done.stderr


def test_mistakes_are_reported_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "taken.jsonl"
    taken.write_text("")
    assert command.call(lambda: check_output(taken, "fill-mask", overwrite=False)) == 2
    message = f"error: --output={taken} exists already; --overwrite replaces it\n"
    assert tuple(capsys.readouterr()) == ("", message)
    for fields, path in (({"text": ["[MASK]"]}, taken), ({"text": []}, None)):
        assert command.call(lambda f=fields, p=path: choose_inputs(f, p) and None) == 2
        message = "error: give either --text, which may be repeated, or --input=FILE\n"
        assert tuple(capsys.readouterr()) == ("", message)


def test_unusable_outputs_are_rejected(tmp_path):
    (tmp_path / "taken.npy").write_bytes(b"")
    for name, task, message in (
        ("a.npy", "fill-mask", r"must end in \.jsonl for --task=fill-mask"),
        ("a.jsonl", "encode", r"must end in \.npy for --task=encode"),
        ("taken.npy", "encode", "exists already"),
        ("missing/a.npy", "encode", "there is no directory .*missing"),
    ):
        with pytest.raises(InputError, match=message):
            check_output(tmp_path / name, task, overwrite=False)
    check_output(tmp_path / "taken.npy", "encode", overwrite=True)
