"""The conversion command: from every format to every other, tokenizer and labels with it."""

import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_models import GROUPS, THREE, TINY, assert_same, make_model, random_params

from albert_jax import AlbertForSequenceClassification, AlbertModel, read_pretrained
from albert_jax.interop.names import WeightsError
from albert_jax.interop.stored_weights import flatten
from albert_jax.pretrained import PretrainedWeights
from albert_jax.training.checkpoint import Checkpoints
from data_pipeline import AlbertTokenizer
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.added_tokens import AddedToken
from data_pipeline.tokenizers.sentencepiece import SentencePieceTokenizer, train_sentencepiece
from data_pipeline.tokenizers.wordpiece import WordPieceTokenizer
from experiments.convert import find_tokenizer
from experiments.converting import Format, architecture_of, convert, list_losses
from experiments.converting.experts import (
    average_stored_experts,
    format_difference,
    measure_difference,
)

TEXT = "The cat and the other one sat, 3,000 of them."
READABLE = (Format.HUGGINGFACE, Format.TENSORFLOW, Format.ORBAX)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory) -> AlbertTokenizer:
    words = ["".join(letters) for letters in itertools.product("catnsober", repeat=3)]
    sentences = [" ".join(words[n : n + 7]) + " 3,000." for n in range(0, len(words), 7)]
    file = tmp_path_factory.mktemp("vocabulary") / "sentences.txt"
    file.write_text("\n".join(sentences))
    return AlbertTokenizer(train_sentencepiece(file, vocab_size=80))


@pytest.fixture
def wordpiece() -> AlbertTokenizer:
    return AlbertTokenizer(WordPieceTokenizer([*SPECIAL, "the", "cat", "sat", "and", ",", "3"]))


def make_workdir(path: Path, model, tokenizer: AlbertTokenizer, *steps: int) -> Path:
    """What a run leaves of itself: one checkpoint a step, the first one being the best."""
    path.mkdir(exist_ok=True)
    model.config.to_json_file(path / "albert_config.json")
    tokenizer.tokenizer.save(path / "tokenizer")
    with Checkpoints(path / "checkpoints", keep=9) as checkpoints:
        for step in steps:
            metrics = {"masked_lm_accuracy": 1 / step}
            state = {"params": random_params(model, step), "opt_state": np.zeros(2)}
            checkpoints.save(step, state, finite=True, metrics=metrics)
    return path


def same_ids(left: Path, tokenizer: AlbertTokenizer) -> bool:
    ids = AlbertTokenizer.from_pretrained(left)(TEXT)["input_ids"]
    return np.array_equal(ids, tokenizer(TEXT)["input_ids"])


def modes(path: Path) -> set[int]:
    """The permissions of the files below a directory."""
    return {file.stat().st_mode & 0o777 for file in path.rglob("*") if file.is_file()}


def test_a_model_goes_round_through_all_formats(sentencepiece, tmp_path):
    model = make_model("ForPreTraining", GROUPS | {"vocab_size": 80}, None)
    path = make_workdir(tmp_path, model, sentencepiece, 20, 30)
    source = read_pretrained(path)
    assert source.step == 20
    assert_same(source.params, random_params(model, 20))
    expected_modes = modes(path / "tokenizer")
    for number, to in enumerate([*READABLE, Format.TENSORFLOW, Format.HUGGINGFACE, Format.ORBAX]):
        stored = read_pretrained(path)
        tokenizer = AlbertTokenizer.from_pretrained(path)
        assert list_losses(stored, tokenizer, to) == []
        path = tmp_path / str(number)
        convert(stored, tokenizer, to, path)
        back = read_pretrained(path)
        assert_same(back.params, source.params)
        assert back.config == model.config
        assert same_ids(path, sentencepiece)
        assert modes(path) == expected_modes
        if to is not Format.HUGGINGFACE:
            assert back.step == (stored.step or 0)


def test_released_vocabularies_have_their_names(sentencepiece, wordpiece, tmp_path):
    for tokenizer, names in (
        (sentencepiece, {"30k-clean.model", "30k-clean.vocab"}),
        (wordpiece, {"vocab.txt"}),
    ):
        changes = {"vocab_size": tokenizer.vocab_size}
        model = make_model("ForPreTraining", changes, None)
        path = make_workdir(tmp_path / str(len(names)), model, tokenizer, 1)
        convert(read_pretrained(path), tokenizer, Format.TENSORFLOW, path / "out")
        checkpoint = {f"model.ckpt-best.{x}" for x in ("index", "data-00000-of-00001")}
        found = {file.name for file in (path / "out").iterdir()}
        assert found == {"albert_config.json"} | names | checkpoint
        assert same_ids(path / "out", tokenizer)
    lines = (tmp_path / "2/out/30k-clean.vocab").read_text().splitlines()
    assert lines[:5] == ["<pad>\t0", "<unk>\t0", "[CLS]\t0", "[SEP]\t0", "[MASK]\t0"]
    assert len(lines) == 80


def test_labels_go_with_their_head(wordpiece, tmp_path):
    model = AlbertForSequenceClassification(TINY, THREE)
    params = random_params(model)
    model.save_pretrained(tmp_path / "theirs", params, wordpiece)
    convert(read_pretrained(tmp_path / "theirs"), wordpiece, Format.ORBAX, tmp_path / "ours")
    again, back = AlbertForSequenceClassification.from_pretrained(tmp_path / "ours")
    assert again == model
    assert_same(back, params)
    stored = read_pretrained(tmp_path / "ours")
    assert stored.architecture == "AlbertForSequenceClassification"
    assert list_losses(stored, wordpiece, Format.TENSORFLOW) == ["the labels (one, two, three)"]
    convert(stored, wordpiece, Format.TENSORFLOW, tmp_path / "released")
    again, back = AlbertForSequenceClassification.from_pretrained(tmp_path / "released")
    assert again.head.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert_same(back, params)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("Model", None),
        ("ForPreTraining", None),
        ("ForMaskedLM", None),
        ("ForSequenceClassification", THREE),
        ("ForTokenClassification", THREE),
        ("ForQuestionAnswering", None),
    ],
)
def test_the_class_follows_from_the_parameters(name, head, tmp_path):
    model = make_model(name, {}, head)
    model.save_pretrained(tmp_path / "model", random_params(model))
    stored = dataclasses.replace(read_pretrained(tmp_path / "model"), architecture=None)
    assert architecture_of(stored) == type(model).__name__


def test_a_cased_vocabulary_has_no_place_in_the_released_format(wordpiece, tmp_path):
    AlbertModel(TINY).save_pretrained(tmp_path / "model", random_params(AlbertModel(TINY)))
    wordpiece.tokenizer.lower_case, wordpiece.tokenizer.keep_accents = False, True
    stored = read_pretrained(tmp_path / "model")
    first, second = list_losses(stored, wordpiece, Format.TENSORFLOW)
    assert "--do_lower_case=false" in first
    assert "accents" in second
    assert list_losses(stored, wordpiece, Format.HUGGINGFACE) == []


@pytest.mark.parametrize("to", READABLE)
def test_weights_alone_are_converted(to, tmp_path):
    model = make_model("ForPreTraining", {}, None)
    model.save_pretrained(tmp_path / "model", random_params(model))
    source = str(tmp_path / "model")
    assert find_tokenizer(None, source) is None
    with pytest.raises(InputError, match="there is no tokenizer in"):
        find_tokenizer(source, source)
    convert(read_pretrained(source), None, to, tmp_path / "out")
    assert_same(read_pretrained(tmp_path / "out").params, random_params(model))
    assert list_losses(read_pretrained(source), None, to) == []
    (tmp_path / "model/tokenizer.json").write_text("{")  # damaged, which is not the same as none
    with pytest.raises(InputError, match="is not JSON"):
        find_tokenizer(None, source)


def test_added_tokens_go_along_or_are_refused(sentencepiece, tmp_path):
    tokens = [AddedToken("[ENT]", special=True), AddedToken("cat", normalized=True)]
    model = sentencepiece.tokenizer.model
    tokenizer = AlbertTokenizer(SentencePieceTokenizer(model, added_tokens=tokens))
    assert tokenizer.vocab_size == 82
    changes = {"vocab_size": 82}
    path = make_workdir(tmp_path / "run", make_model("ForPreTraining", changes, None), tokenizer, 5)
    for to in (Format.HUGGINGFACE, Format.ORBAX):
        tokenizer = find_tokenizer(None, str(path))
        convert(read_pretrained(path), tokenizer, to, tmp_path / to)
        path = tmp_path / to
        again = find_tokenizer(None, str(path))
        assert again.tokenizer.tokens[80:] == ("[ENT]", "cat")
        assert again("[ENT] cat[ENT]")["input_ids"].tolist() == [[2, 80, 81, 80, 3]]
        assert read_pretrained(path).params["predictions"]["bias"].shape == (82,)
    with pytest.raises(WeightsError, match=r"no place for added tokens: \[ENT\], cat"):
        convert(read_pretrained(path), tokenizer, Format.TENSORFLOW, tmp_path / "released")
    assert not (tmp_path / "released").exists()


def test_what_cannot_be_written_leaves_nothing(sentencepiece, wordpiece, tmp_path):
    model = make_model("ForPreTraining", {"hidden_act": "gelu_erf"}, None)
    model.save_pretrained(tmp_path / "model", random_params(model), wordpiece)
    stored = read_pretrained(tmp_path / "model")
    with pytest.raises(WeightsError, match="the tokenizer has 80 tokens, the model has 11"):
        convert(stored, sentencepiece, Format.ORBAX, tmp_path / "out")
    with pytest.raises(WeightsError, match="only the tanh form"):
        convert(stored, wordpiece, Format.TENSORFLOW, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_command_says_what_it_wrote_or_what_is_wrong(wordpiece, tmp_path):
    model = make_model("ForPreTraining", {}, None)
    make_workdir(tmp_path / "run", model, wordpiece, 3)

    def command(**flags):
        return subprocess.run(
            [sys.executable, "-m", "experiments.convert"]
            + [f"--{name}={value}" for name, value in flags.items()],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    source = {"from": tmp_path / "run/checkpoints/3", "to": "huggingface"}
    done = command(**source, output=tmp_path / "out")
    assert done.returncode == 0, done.stderr
    count = sum(x.size for x in flatten(random_params(model)).values())
    assert done.stdout.splitlines() == [
        f"{tmp_path}/out: AlbertForPreTraining, {count} parameters, 2 layers of 2 heads, gelu"
    ]
    done = command(**source, output=tmp_path / "out")
    assert done.returncode == 2
    assert (tmp_path / "out/README.md").read_text().startswith("---\nlibrary_name: transformers\n")
    *_, told = done.stderr.splitlines()
    assert told == f"error: {tmp_path}/out exists already; choose another directory"


def test_inference_is_written_with_the_tokenizer(wordpiece, tmp_path):
    model = AlbertForSequenceClassification(TINY, THREE)
    model.save_pretrained(tmp_path / "model", random_params(model), wordpiece)
    stored = read_pretrained(tmp_path / "model")
    convert(stored, wordpiece, Format.STABLEHLO, tmp_path / "out")
    names = {file.name for file in (tmp_path / "out").iterdir()}
    tokenizer = {"tokenizer.json", "tokenizer_config.json", "vocab.txt"}
    assert names == {"model.stablehlo", "signature.json"} | tokenizer
    assert same_ids(tmp_path / "out", wordpiece)
    assert modes(tmp_path / "out") == modes(tmp_path / "model")


def test_without_onnx_one_line_says_what_to_install(wordpiece, tmp_path, monkeypatch):
    model = make_model("ForPreTraining", {}, None)
    model.save_pretrained(tmp_path / "model", random_params(model))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(WeightsError, match=r"needs the package onnx: pip install 'albert-jax\[onn"):
        convert(read_pretrained(tmp_path / "model"), wordpiece, Format.ONNX, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("expert_layers", ["all", "2"])
def test_the_mean_of_equal_experts_is_what_each_of_them_does(tmp_path, expert_layers):
    changes = {"num_experts": 3, "expert_rank": 2, "expert_layers": expert_layers}
    model = make_model("ForPreTraining", changes, None)
    params = random_params(model)
    half = params["albert"]["encoder"]["layers"]["feed_forward"]
    for experts in (half["intermediate_experts"], half["output_experts"]):
        for name, stack in experts.items():
            experts[name] = np.broadcast_to(stack[:, :, :1], stack.shape)
    stored = PretrainedWeights(model.config, None, params, "AlbertForPreTraining", None)
    averaged, difference = average_stored_experts(stored)
    assert difference.hidden < 1e-5
    assert difference.divergence == pytest.approx(0, abs=1e-5)
    assert difference.agreement == 1
    shared = averaged.config.feed_forward_copies
    assert shared == (1 if expert_layers == "all" else TINY.num_hidden_layers)
    convert(averaged, None, Format.HUGGINGFACE, tmp_path / "model")
    read = read_pretrained(tmp_path / "model")
    assert measure_difference(stored, read).hidden < 1e-5
    half["router"]["bias"] += np.arange(3, dtype=np.float32)
    half["output_experts"]["up"] = random_params(model, 1)["albert"]["encoder"]["layers"][
        "feed_forward"
    ]["output_experts"]["up"]
    _, difference = average_stored_experts(stored)
    assert difference.hidden > 1e-2
    assert "of the most probable tokens stay" in format_difference(difference)
    with pytest.raises(WeightsError, match="--average_experts: the model has none"):
        average_stored_experts(averaged)
