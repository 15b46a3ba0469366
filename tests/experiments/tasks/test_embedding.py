"""Embeddings end to end: learned, reported, compared by `predict`, and converted."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import tiny_tasks
from etils import epath
from short_runs import use_one_device

from albert_jax import AlbertForEmbedding, Pooling, read_pretrained
from albert_jax.interop.names import WeightsError
from albert_jax.settings import FieldError
from albert_jax.tasks.embedding_files import VectorForm, read_vector_form
from data_pipeline import AlbertTokenizer
from data_pipeline.errors import InputError
from data_pipeline.finetuning.similarity.examples import PairFormat
from experiments.converting.formats import Format, convert, list_losses
from experiments.finetune import finetune
from experiments.finetuning.open_run import open_finetuning
from experiments.predict import TASKS
from experiments.prediction.inference import put_in_order
from experiments.run import training as training_run
from experiments.tasks.config import FinetuneConfig
from experiments.tasks.raw_inputs import PredictionOptions, RawInput
from experiments.tasks.task_settings import DropoutConfig, EmbeddingConfig, TaskName

SCORED = EmbeddingConfig(train_format=PairFormat.STSB, dev_format=PairFormat.STSB)
PAIRS = {"text_column": "a", "text_pair_column": "b"}


@pytest.fixture(scope="module", autouse=True)
def one_device() -> Iterator[None]:
    """Use one device, and draw nothing; see `tests/experiments/test_finetune.py`."""
    with pytest.MonkeyPatch.context() as patch:
        one = use_one_device(patch)
        patch.setattr("experiments.prediction.inference.make_mesh", lambda: one)
        patch.setattr(training_run, "draw_run", lambda *_: None)
        patch.setattr("experiments.finetuning.report._plot", lambda *_, **__: None)
        yield


def scored_pairs(count: int, seed: int) -> list[dict[str, Any]]:
    """Pairs of sentences with a key each, which are as alike as their keys."""
    (words, keys) = zip(*tiny_tasks.sentences(2 * count, ["good", "bad"], seed), strict=True)
    rows = []
    for first, second in zip(range(count), range(count, 2 * count), strict=True):
        score = 5.0 * (keys[first] == keys[second])
        texts = {"sentence1": " ".join(words[first]), "sentence2": " ".join(words[second])}
        rows.append({**texts, "score": score})
    return rows


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Make a configuration, by default on scored pairs."""
    directory = tmp_path_factory.mktemp("data")
    tokenizer = tiny_tasks.write_tokenizer(directory / "tokenizer")
    files = {
        f"{split}_file": write_jsonl(directory / f"{split}.jsonl", scored_pairs(count, number))
        for number, (split, count) in enumerate((("train", 160), ("dev", 60)))
    }

    def make(
        embedding: EmbeddingConfig = SCORED, steps: int = 60, dropout: float = 0.1, **others: Any
    ) -> FinetuneConfig:
        data = {name: others.pop(name) for name in list(others) if name.endswith(("_file", "umn"))}
        config = tiny_tasks.make_finetuning(
            TaskName.EMBEDDING, tokenizer, steps=steps, data=files | data, **others
        )
        return dataclasses.replace(
            config, embedding=embedding, dropout=DropoutConfig(encoder=dropout)
        )

    return make


@pytest.fixture(scope="module")
def finished(make: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("runs") / "finished"
    finetune(make(dropout=0.0), workdir)
    return workdir


def dev_pairs(config: FinetuneConfig) -> list[dict[str, Any]]:
    return read_jsonl(Path(str(config.data.dev_file)))


def similarities(model: Path, rows: list[dict[str, Any]], **options: Any) -> list[float]:
    inputs = [
        RawInput({"text": row["sentence1"], "text_pair": row["sentence2"]}, "test") for row in rows
    ]
    task = TASKS["similarity"]
    found = task.predict(inputs, PredictionOptions(str(model), **options))
    results = put_in_order(found, len(inputs))
    assert task.format(results[0]).splitlines()[:2] == list(inputs[0].fields.values())
    return [result["similarity"] for result in results]


def test_cosines_are_learned_and_reported_and_compared(finished: Path, make: Any) -> None:
    report = json.loads((finished / "report.json").read_text())
    assert report["metric"] == "spearman"
    assert report["value"] > 0.6
    assert report["baseline"] == 0
    rows = dev_pairs(make())
    cosines = similarities(finished, rows)
    scores = [row["score"] for row in rows]
    figures = report["splits"]["dev"]["figures"]
    assert scipy.stats.spearmanr(cosines, scores).statistic == pytest.approx(figures["spearman"])
    assert scipy.stats.pearsonr(cosines, scores).statistic == pytest.approx(
        figures["pearson"], abs=1e-6
    )


def test_a_workdir_says_how_its_vectors_are_made(finished: Path, make: Any) -> None:
    model, params = AlbertForEmbedding.from_pretrained(finished)
    assert (model.pooling, model.normalize) == (Pooling.MEAN, True)
    text = dev_pairs(make())[0]["sentence1"]
    outputs: Any = model.apply(
        {"params": params}, **AlbertTokenizer.from_pretrained(str(finished))([text])
    )
    given = [RawInput({"text": text}, "test")]
    (own,) = TASKS["encode"].predict(given, PredictionOptions(str(finished)))
    np.testing.assert_allclose(own[1]["embedding"], outputs.embeddings[0], atol=1e-6)
    assert np.linalg.norm(own[1]["embedding"]) == pytest.approx(1)


def test_conversions_keep_the_pooling_or_say_that_they_do_not(
    finished: Path, tmp_path: Path, make: Any
) -> None:
    stored, tokenizer = read_pretrained(finished), AlbertTokenizer.from_pretrained(str(finished))
    form = read_vector_form(epath.Path(finished))
    assert form == VectorForm(Pooling.MEAN, normalize=True)
    rows = dev_pairs(make())[:4]
    for to in (Format.SENTENCE_TRANSFORMERS, Format.ORBAX):
        convert(stored, tokenizer, to, tmp_path / to, form=form)
        assert not list_losses(stored, tokenizer, to, form)
        assert read_vector_form(epath.Path(tmp_path / to)) == form
    exported = similarities(tmp_path / Format.SENTENCE_TRANSFORMERS, rows)
    np.testing.assert_allclose(exported, similarities(finished, rows), atol=1e-6)
    losses = list_losses(stored, tokenizer, Format.HUGGINGFACE, form)
    assert losses == ["how vectors are made (pooling mean)"]


def test_files_of_sentence_transformers_are_read_or_refused(tmp_path: Path) -> None:
    modules = [{"type": f"x.{kind}", "path": kind} for kind in ("Transformer", "Pooling")]
    (tmp_path / "Pooling").mkdir()

    def read(pooling: dict[str, Any], *more: str) -> VectorForm | None:
        listed = [*modules, *({"type": f"x.{kind}", "path": ""} for kind in more)]
        (tmp_path / "modules.json").write_text(json.dumps(listed))
        (tmp_path / "Pooling/config.json").write_text(json.dumps(pooling))
        return read_vector_form(epath.Path(tmp_path))

    assert read({"pooling_mode": "cls"}) == VectorForm(Pooling.FIRST, normalize=False)
    switches = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    assert read(switches, "Normalize") == VectorForm(Pooling.MEAN, normalize=True)
    with pytest.raises(WeightsError, match=r"must be Transformer, Pooling and perhaps Normalize"):
        read(switches, "Dense", "Normalize")
    for other in ({"pooling_mode": "max"}, {"pooling_mode_max_tokens": True} | switches, {}):
        with pytest.raises(WeightsError, match=r"config\.json: the pooling must be one of cls and"):
            read(other)


def test_triplets_are_contrasted_and_pairs_are_ranked(make: Any, tmp_path: Path) -> None:
    rows = [{"a": f"word{n}", "b": f"word{n} good", "c": "bad" * (n % 2)} for n in range(8)]
    file = write_jsonl(tmp_path / "pairs.jsonl", rows)
    embedding = EmbeddingConfig(candidates=4, negative_column="c")
    config = make(embedding, train_file=file, dev_file=file, **PAIRS)
    task = open_finetuning(config, tmp_path / "run").task
    assert (task.train.choices, task.labeled["dev"].choices) == (3, 2)
    ids = task.train.arrays["text_ids"]
    np.testing.assert_array_equal(ids[::2, 1], ids[::2, 2])
    assert len(set(ids[1::2, 2])) == 1
    # The first four positives are right, of the others each is the next one's.
    positives = np.eye(8)[[0, 1, 2, 3, 5, 6, 7, 4]]
    outputs = [{"embeddings": np.stack(pair)} for pair in zip(np.eye(8), positives, strict=True)]
    scores = task.score("dev", outputs)
    assert task.best_metric == "mrr"
    assert scores.metrics == {"mrr": 0.5 + 0.5 / 4, "retrieval_accuracy": 0.5}
    assert scores.notes == ["the positive of an anchor is sought among 4 of dev"]


def test_single_texts_are_learned_by_dropout_and_by_nothing_else(make: Any, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "texts.jsonl", [{"a": f"word{n}"} for n in range(8)])
    columns = EmbeddingConfig(dev_format=PairFormat.STSB)
    config = make(columns, train_file=file, text_column="a")
    task = open_finetuning(config, tmp_path / "run").task
    ids = task.train.arrays["text_ids"]
    np.testing.assert_array_equal(ids[:, 0], ids[:, 1])
    still = make(columns, dropout=0.0, train_file=file, text_column="a")
    with pytest.raises(InputError, match=r"dropout\.encoder must be above 0 without.*pair_column"):
        open_finetuning(still, tmp_path / "run")
    unpaired = make(EmbeddingConfig(), train_file=file, dev_file=file, text_column="a")
    with pytest.raises(InputError, match=r"text_pair_column is missing.*dev_format=sts-b reads"):
        open_finetuning(unpaired, tmp_path / "run")
    scored = make(EmbeddingConfig(score_column="s"), train_file=file, text_column="a")
    with pytest.raises(InputError, match=r"text_pair_column is missing.*score_column has the"):
        open_finetuning(scored, tmp_path / "run")


def test_settings_that_do_not_go_together_are_refused(make: Any) -> None:
    with pytest.raises(FieldError, match=r"accumulation_steps must be 1 with task=embedding"):
        make(accumulation_steps=2)
    with pytest.raises(FieldError, match=r"pooling must be mean or first"):
        EmbeddingConfig(pooling=Pooling.POOLED)
    with pytest.raises(FieldError, match=r"score_column must be none with negative_column"):
        EmbeddingConfig(score_column="a", negative_column="b")
