"""Model cards: every fact in the files of a workdir, and no others."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tiny_models import THREE, TINY, make_model, random_params

from albert_jax import (
    AlbertForEmbedding,
    AlbertForSequenceClassification,
    HeadConfig,
    Pooling,
    ProblemType,
    read_pretrained,
)
from albert_jax.pretrained import PretrainedWeights
from albert_jax.tasks.embedding_files import VectorForm
from albert_jax.training.checkpoint import Checkpoints
from data_pipeline import AlbertTokenizer
from data_pipeline.config import DataConfig
from data_pipeline.tokenizers.wordpiece import WordPieceTokenizer
from experiments.cli.config_dicts import to_json
from experiments.converting import (
    Format,
    Provenance,
    convert,
    format_model_card,
    read_provenance,
)
from experiments.run.config import ExperimentConfig, PhaseConfig, PhasesConfig
from experiments.tasks.config import FinetuneConfig, FinetuneRunConfig
from experiments.tasks.task_settings import TaskName

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "and", ",", "3")
TOKENIZER = AlbertTokenizer(WordPieceTokenizer(WORDS))


def make_workdir(path: Path, model: Any, config: Any, step: int, **files: Any) -> Path:
    """What a run leaves of itself; `files` are names without their endings, and contents."""
    path.mkdir()
    model.config.to_json_file(path / "albert_config.json")
    (path / "config.json").write_text(to_json(config))
    with Checkpoints(path / "checkpoints", keep=1) as checkpoints:
        state = {"params": random_params(model), "opt_state": np.zeros(2)}
        checkpoints.save(step, state, finite=True)
    for name, content in files.items():
        entries = content if isinstance(content, list) else [content]
        ending = "jsonl" if isinstance(content, list) else "json"
        (path / f"{name}.{ending}").write_text("".join(f"{json.dumps(one)}\n" for one in entries))
    return path


def make_card(path: Path, name: str = "me/model", to: Format = Format.HUGGINGFACE) -> str:
    stored = read_pretrained(path)
    return format_model_card(name, stored, TOKENIZER, read_provenance(path, stored.step), to)


def header_of(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    early = PhaseConfig(num_steps=900, max_seq_length=128)
    model = make_model("ForPreTraining", {"max_position_embeddings": 512}, None)
    config = ExperimentConfig(
        model=model.config,
        data=DataConfig(corpus_dir="/home/somebody/wiki_en"),
        phases=PhasesConfig(first=early),
        global_batch_size=32,
        seed=7,
    )
    metrics = [
        {"step": 500, "split": "validation", "time": 1.0, "loss": 9.0},
        {"step": 1000, "split": "train", "time": 2.0, "loss": 3.5},
        {"step": 1000, "split": "validation", "time": 2.0, "loss": 4.25, "pairs": 64.0},
        {"step": 1000, "split": "goodput", "time": 3.0, "goodput": 0.9},
    ]
    identity = {
        "path": "/home/somebody/wiki_en",
        "fingerprint": "0123456789abcdef" * 4,
        "weights": {"books": 1.0, "wiki|en": 2.0},
    }
    return make_workdir(tmp_path / "run", model, config, 1000, metrics=metrics, corpus=identity)


def test_a_pretrained_model_has_its_training_and_the_metrics_of_its_checkpoint(
    pretrained: Path,
) -> None:
    card = make_card(pretrained, "me/\N{GRINNING FACE}: model")
    header = header_of(card)
    assert header["model-index"][0]["name"] == "me/\N{GRINNING FACE}: model"
    assert header["library_name"] == "transformers" and header["pipeline_tag"] == "fill-mask"
    (result,) = header["model-index"][0]["results"]
    assert result["dataset"]["name"] == "wiki_en"
    assert result["metrics"] == [{"type": "loss", "value": 4.25}]
    count = sum(leaf.size for leaf in _leaves(read_pretrained(pretrained).params))
    for line in (
        "# \N{GRINNING FACE}: model",
        f"| parameters | {count:,} |",
        "| layers | 2, parameters shared: all |",
        "| vocabulary | 11 tokens, WordPiece |",
        "| steps | 1,000 of 125,000 |",
        "| rows of a step | 32 of up to 128 tokens for 900 steps; "
        "32 of up to 512 tokens for 124,100 steps |",
        "| corpus | wiki_en; sources books (weight 1), wiki\\|en (weight 2); "
        "fingerprint 0123456789abcdef |",
        "| objectives | masked LM (ngram masks, 15% of the tokens), sentence order |",
        "| seed | 7 |",
        "| wiki_en | validation, 64 pairs | loss | 4.25 |",
        "- A row has at most 512 tokens.",
        "- Text is lowercased.",
    ):
        assert line in card.splitlines(), f"{line}\n{card}"
    assert "somebody" not in card and "9.0" not in card
    vectors = make_card(pretrained, to=Format.SENTENCE_TRANSFORMERS)
    header = header_of(vectors)
    assert header["library_name"] == "sentence-transformers"
    assert header["pipeline_tag"] == "sentence-similarity"
    assert 'model = SentenceTransformer("me/model")' in vectors.splitlines()


def test_results_of_glue_in_the_workdir_are_there(pretrained: Path) -> None:
    fields = {"task": "rte", "metric": "accuracy", "baseline": 52.7}
    results = [
        {**fields, "start": "pretrained", "median": 61.0},
        {**fields, "start": "random", "median": 50.0},
    ]
    (pretrained / "glue").mkdir()
    (pretrained / "glue/report.json").write_text(json.dumps({"results": results}))
    rows = [line for line in make_card(pretrained).splitlines() if "rte" in line and "|" in line]
    assert rows == ["| rte, fine-tuned | dev | median accuracy, percent | 61 | 52.7 |"]


def test_a_finetuned_model_has_its_report_and_no_other_checkpoints(tmp_path: Path) -> None:
    run = FinetuneRunConfig(init_from="albert/albert-base-v2")
    config = FinetuneConfig(task=TaskName.SST2, run=run)
    figures = {"accuracy": 0.875, "matthews": float("nan")}
    scores = {"figures": figures, "baseline": {"accuracy": 0.5}}
    report = {
        "step": 30,
        "failed": "no better than a constant answer",
        "training_examples": 67349,
        "splits": {"dev": scores},
    }
    head = {"architecture": "AlbertForSequenceClassification", **dataclasses.asdict(THREE)}
    model = AlbertForSequenceClassification(TINY, THREE)
    path = make_workdir(tmp_path / "run", model, config, 30, report=report, head=head)
    card = make_card(path, "tuned")
    (result,) = header_of(card)["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": 0.875}]
    lines = card.splitlines()
    for line in (
        "| training examples | 67,349 |",
        "| labels | one, two, three |",
        "| started from | albert/albert-base-v2 |",
        "| sst-2 | dev | accuracy | 0.875 | 0.5 |",
        "The run counts as failed: no better than a constant answer.",
        'model, params = AlbertForSequenceClassification.from_pretrained("tuned")',
    ):
        assert line in lines, line
    (path / "report.json").write_text(json.dumps(report | {"step": 20}))
    card = make_card(path, "tuned")
    assert "0.875" not in card and "67,349" not in card and "## Results" not in card
    assert "- The files that it was converted from record no measurements." in card


def test_what_is_unknown_is_left_out(tmp_path: Path) -> None:
    model = make_model("ForMaskedLM", {}, None)
    model.save_pretrained(tmp_path / "model", random_params(model), TOKENIZER)
    stored = read_pretrained(tmp_path / "model")
    source = read_provenance(tmp_path / "model", None)
    card = format_model_card("copy", stored, None, source)
    assert header_of(card) == {
        "library_name": "transformers",
        "pipeline_tag": "fill-mask",
        "tags": ["albert", "jax"],
    }
    sections = [line for line in card.splitlines() if line.startswith("## ")]
    assert sections == ["## Model", "## Use", "## Limits"]
    assert "Tokenizer" not in card


@pytest.mark.parametrize(
    ("name", "to", "tokenizer"),
    [
        ("ForConditionalSpan", Format.STABLEHLO, None),
        pytest.param("ForConditionalSpan", Format.ONNX, TOKENIZER, marks=pytest.mark.interop),
        pytest.param("ForMultipleChoice", Format.ONNX, TOKENIZER, marks=pytest.mark.interop),
        pytest.param("ForMultipleChoice", Format.STABLEHLO, TOKENIZER, marks=pytest.mark.interop),
    ],
)
def test_the_program_of_a_card_runs_the_export(
    name: str,
    to: Format,
    tokenizer: AlbertTokenizer | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = make_model(name, {}, None)
    head = {"architecture": f"Albert{name}", **dataclasses.asdict(HeadConfig())}
    path = make_workdir(tmp_path / "run", model, FinetuneConfig(task=TaskName.SQUAD), 3, head=head)
    stored = read_pretrained(path)
    card = format_model_card("me/served", stored, tokenizer, read_provenance(path, 3), to)
    convert(stored, tokenizer, to, tmp_path / "served", card=card)
    assert (tmp_path / "served/README.md").read_text() == card
    assert header_of(card)["tags"] == ["albert", "jax", str(to)]
    assert "library_name" not in header_of(card)
    assert "| task | squad |" in card and "from_pretrained" not in card
    monkeypatch.chdir(tmp_path / "served")
    program = card.split("```python\n")[1].split("```")[0]
    exec(program, {})  # prints the last output
    found = np.array(capsys.readouterr().out.strip("[]\n").split(), np.float32)
    if name == "ForConditionalSpan":
        assert found.shape == ((1,) if tokenizer else (2,))
        assert "- A row has at least 5 tokens." in card.splitlines()
        assert (
            f"| `end_indices` | int{32 if to is Format.STABLEHLO else 64} | batch, 5, 5 |" in card
        )
    else:
        assert found.shape == (2,) and "| `logits` | float32 | batch, choices |" in card


def test_scores_are_predicted_as_scores(tmp_path: Path) -> None:
    head = HeadConfig(("score",), ProblemType.REGRESSION)
    model = AlbertForSequenceClassification(TINY, head)
    model.save_pretrained(tmp_path / "model", random_params(model), TOKENIZER)
    card = make_card(tmp_path / "model", "scored")
    assert 'predict --model=scored --task=score --text="This is a text."' in card
    assert "--task=classify" not in card


@pytest.mark.parametrize("to", [Format.HUGGINGFACE, Format.TENSORFLOW, Format.ORBAX])
@pytest.mark.parametrize("form", [None, VectorForm(Pooling.FIRST, normalize=True)])
def test_the_program_of_a_card_loads_an_encoder_without_a_pooler(
    to: Format, form: VectorForm | None, tmp_path: Path
) -> None:
    params = random_params(AlbertForEmbedding(TINY))
    stored = PretrainedWeights(TINY, None, params, None, 3)
    name = str(tmp_path / "model")
    card = format_model_card(name, stored, TOKENIZER, Provenance({}, None, (), None), to, form)
    convert(stored, TOKENIZER, to, tmp_path / "model", form=form)
    program = card.split("In albert-jax:\n\n```python\n")[1].split("```")[0]
    loaded: dict[str, Any] = {}
    exec(program, loaded)
    assert loaded["params"].keys() == params["albert"].keys()
    pooling = Pooling.MEAN if form is None else form.pooling
    assert f"--task=encode --pooling={pooling} " in card
    if to is Format.HUGGINGFACE:
        assert f'model = AutoModel.from_pretrained("{name}", add_pooling_layer=False)' in card


def test_weights_in_other_formats_are_loaded_here(pretrained: Path) -> None:
    stored = read_pretrained(pretrained)
    source = read_provenance(pretrained, stored.step)
    for to, says in ((Format.TENSORFLOW, "of the [released code]("), (Format.ORBAX, "In albert-j")):
        card = format_model_card("copy", stored, TOKENIZER, source, to)
        assert says in card and "transformers" not in card
        assert 'AlbertForPreTraining.from_pretrained("copy")' in card


def _leaves(tree: Any) -> list[Any]:
    if not isinstance(tree, dict):
        return [tree]
    return [leaf for branch in tree.values() for leaf in _leaves(branch)]
