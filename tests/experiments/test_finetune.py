"""Fine-tuning end to end: every kind of task is learned, interrupted, resumed and reported."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny_tasks
from commands import assert_same_params, stopped_after
from short_runs import use_one_device

from albert_jax.config import HeadConfig, ProblemType
from albert_jax.pretrained import open_weights
from albert_jax.tasks.models import AlbertForSequenceClassification
from albert_jax.training.checkpoint import restore_params
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.loading import load_tokenizer
from experiments.cli.command import call
from experiments.cli.exit_codes import ExitCode
from experiments.finetune import finetune, suggested_prediction
from experiments.finetuning.open_run import open_finetuning
from experiments.finetuning.starting_point import read_task_parameters
from experiments.metrics.metrics_file import read_metrics
from experiments.predict import TASKS, choose_model
from experiments.run import initial_parameters
from experiments.run import training as training_run
from experiments.tasks.config import FinetuneConfig
from experiments.tasks.raw_inputs import PredictionOptions, RawInput
from experiments.tasks.task_settings import SpanConfig, TaskName

LABELS = {"good": "pos", "bad": "neg"}
# A learning rate that changes nothing; one for all tests, which then share its compiled step.
STILL = 1e-12


@pytest.fixture(scope="module", autouse=True)
def one_device() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        use_one_device(patch)
        yield


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip pictures, which take a third of a short run; `finished` is made before this applies."""
    monkeypatch.setattr(training_run, "draw_run", lambda *_: None)
    monkeypatch.setattr("experiments.finetuning.report._plot", lambda *_, **__: None)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tasks.write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return tiny_tasks.write_texts(tmp_path_factory.mktemp("texts"), LABELS)


@pytest.fixture(scope="module")
def make_config(tokenizer: Path, texts: dict[str, Any]) -> Any:
    """Make configurations of runs, on texts by default."""

    def make(
        task: TaskName = TaskName.TEXT, data: dict[str, Any] = texts, **run: Any
    ) -> FinetuneConfig:
        return tiny_tasks.make_finetuning(task, tokenizer, data=data, **run)

    return make


@pytest.fixture(scope="module")
def finished(make_config: Any, texts: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run on texts, in rows of two lengths."""
    workdir = tmp_path_factory.mktemp("runs") / "finished"
    assert finetune(make_config(data=texts | {"num_lengths": 2}), workdir) is ExitCode.DONE
    return workdir


def read_report(workdir: Path) -> dict[str, Any]:
    return json.loads((workdir / "report.json").read_text())


def test_texts_are_classified_and_reported(finished: Path) -> None:
    report = read_report(finished)
    assert report["value"] > 0.95
    assert 0.4 < report["baseline"] < 0.65
    assert report["failed"] is None
    dev = report["splits"]["dev"]
    assert dev["classes"] == ["neg", "pos"]
    confusion = np.array(dev["confusion"])
    assert confusion.sum() == 60
    assert np.trace(confusion) / 60 == dev["figures"]["accuracy"] == report["value"]
    text = (finished / "report.md").read_text()
    assert f"# text: accuracy {report['value']:.4f}" in text
    assert f"| neg | {confusion[0, 0]} | {confusion[0, 1]} |" in text
    assert "Scores of the best checkpoint" in (finished / "report.html").read_text()
    for name in ("scores.png", "curves.png", "checkpoints/best"):
        assert (finished / name).stat().st_size
    lines = (finished / "test_predictions.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    assert rows[0][:2] == ["id", "prediction"]
    assert [row[0] for row in rows[1:]] == [str(number) for number in range(20)]
    assert all(abs(float(row[2]) + float(row[3]) - 1) < 1e-5 for row in rows[1:])


def test_a_workdir_is_a_model(finished: Path) -> None:
    model, params = AlbertForSequenceClassification.from_pretrained(finished)
    assert model.head.labels == ("neg", "pos")
    step = int((finished / "checkpoints/best").read_text())
    saved = restore_params(finished / "checkpoints", step)
    jax.tree.map(np.testing.assert_array_equal, params, saved)
    assert (finished / "tokenizer/vocab.txt").exists()


@pytest.fixture
def compiled() -> Iterator[list[str]]:
    """The names of the programs that XLA compiles, or takes from its cache."""
    names: list[str] = []

    def listen(event: str, duration: float, **about: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(about["fun_name"])

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


def test_a_short_run_compiles_its_two_steps_once(
    make_config: Any, texts: Any, tmp_path: Path, compiled: list[str]
) -> None:
    """Each of the three files has rows of several lengths; the small programs are the schedule."""
    data = texts | {"num_lengths": 5}
    assert finetune(make_config(data=data, steps=20), tmp_path / "run") is ExitCode.DONE
    assert compiled.count("jit(train_step)") == 1
    steps = [name for name in compiled if name in ("jit(train_step)", "jit(<lambda>)")]
    assert len(steps) == 2 and len(compiled) <= 16, compiled
    compiled.clear()
    options = PredictionOptions(model=str(tmp_path / "run"))
    inputs = [RawInput({"text": " ".join(["good"] * n)}, f"example {n}") for n in (1, 20, 60)]
    assert len(list(TASKS["classify"].predict(inputs, options))) == 3
    assert len([name for name in compiled if name != "jit(stage)"]) == 1  # that one is Orbax's


def test_an_interrupted_run_resumes_as_if_nothing_had_happened(
    make_config: Any,
    texts: Any,
    finished: Path,
    tmp_path: Path,
) -> None:
    config = make_config(data=texts | {"num_lengths": 2})
    # Between evaluations; and at one, which comes before the interruption.
    for signaled_at, stopped_at in ((33, 33), (40, 41)):
        with stopped_after(signaled_at):
            assert finetune(config, tmp_path) is ExitCode.PREEMPTED
        steps = [int(path.name) for path in tmp_path.glob("checkpoints/[0-9]*")]
        assert max(steps) == stopped_at
        assert not (tmp_path / "report.json").exists()
    assert finetune(config, tmp_path) is ExitCode.DONE
    assert_same_params(tmp_path, finished)

    def validations(workdir: Path) -> list[tuple[int, float]]:
        entries = read_metrics(workdir)
        return [(e["step"], e["accuracy"]) for e in entries if e["split"] == "validation"]

    assert validations(tmp_path) == validations(finished)
    left, right = read_report(tmp_path), read_report(finished)
    assert left["splits"] == right["splits"]
    assert left["step"] == right["step"]


def test_seeds_and_rates_are_reported_together(make_config: Any, tmp_path: Path) -> None:
    """The first seed chooses the first rate, so the second seed has no run with the other."""
    config = make_config(
        seeds=2,
        learning_rates=f"5e-3,{STILL}",
        rate_search="first_seed",
        evaluate_every=60,
        checkpoint_every=20,
    )
    assert finetune(config, tmp_path) is ExitCode.DONE
    names = ["rate_0.005_seed_1", "rate_1e-12_seed_1", "rate_0.005_seed_2"]
    report = read_report(tmp_path)
    assert list(report["runs"]) == names
    values = [read_report(tmp_path / name)["value"] for name in names]
    assert [run["value"] for run in report["runs"].values()] == values
    best, worst = report["learning_rates"]
    assert (best["learning_rate"], worst["learning_rate"]) == (0.005, STILL)
    rated = values[::2]
    assert best["median"] == pytest.approx(np.median(rated))
    assert report["rate_search"] == {
        "seed": 1,
        "values": {"0.005": values[0], "1e-12": values[1]},
        "median_of_other_seeds": values[2],
    }
    assert choose_model(str(tmp_path)) == str(tmp_path / names[int(np.argmax(values))])
    assert choose_model(str(tmp_path / names[0])) == str(tmp_path / names[0])
    assert best["standard_error"] == pytest.approx(np.std(rated, ddof=1) / np.sqrt(2))
    params = [jax.tree.leaves(restore_params(tmp_path / n / "checkpoints")) for n in names[::2]]
    assert any((x != y).any() for x, y in zip(*params, strict=True))
    page = (tmp_path / "report.html").read_text()
    assert page.count("<polyline") == 3 * len(names)  # loss, accuracy, Matthews' correlation
    text = (tmp_path / "report.md").read_text()
    assert f"| rate_0.005_seed_1 | {values[0]:.4f} |" in text
    written = (tmp_path / names[0] / "report.json").stat().st_mtime_ns
    assert finetune(config, tmp_path) is ExitCode.DONE  # nothing is trained again
    steps = [e["step"] for e in read_metrics(tmp_path / names[0]) if e["split"] == "train"]
    assert steps == [10, 20, 30, 40, 50, 60]
    assert (tmp_path / names[0] / "report.json").stat().st_mtime_ns >= written


def test_a_report_computes_no_outputs_that_the_best_evaluation_has(
    make_config: Any, tmp_path: Path
) -> None:
    """Two sets of parameters, as of two checkpoints or two seeds at the same step."""
    _, task, evaluator, *_ = open_finetuning(make_config(), tmp_path)
    worse, better = (task.model.initialize(jax.random.key(seed)) for seed in (1, 2))
    accuracy = {id(each): evaluator.evaluate(each)["accuracy"] for each in (worse, better)}
    worse, better = sorted((worse, better), key=lambda each: accuracy[id(each)])
    for params in (better, worse):  # the worse one last, so that the best is not the last
        evaluator.evaluate(params)
    computed = list[int]()
    predict = evaluator._predict
    evaluator._predict = lambda params, batch: (computed.append(1), predict(params, batch))[1]

    def outputs_of(params: Any) -> dict[str, Any]:
        computed.clear()
        found = dict(evaluator.final_outputs(params))
        return {split: np.stack([row["logits"] for row in rows]) for split, rows in found.items()}

    kept = outputs_of(better)
    batches_of_test = len(computed)
    again = outputs_of(better)  # the evaluation is forgotten
    assert len(computed) > batches_of_test > 0
    jax.tree.map(np.testing.assert_array_equal, kept, again)
    evaluator.evaluate(better)
    others = outputs_of(worse)
    assert len(computed) > batches_of_test
    assert not np.array_equal(others["dev"], kept["dev"])


def test_a_run_that_does_not_improve_ends_early_and_stays_ended(
    make_config: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config(patience=2, evaluate_every=10, checkpoint_every=10)
    still = dataclasses.replace(config.optimizer, learning_rate=STILL)
    config = dataclasses.replace(config, optimizer=still)
    for _ in range(2):
        assert finetune(config, tmp_path) is ExitCode.DONE
        message = capsys.readouterr().err
        assert "ended early at step 30: 2 evaluations without a better accuracy than" in message
        assert max(entry["step"] for entry in read_metrics(tmp_path)) == 30


def test_a_run_starts_from_the_parameters_or_the_sizes_of_another(
    make_config: Any,
    texts: Any,
    finished: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def run(name: str, **run: Any) -> tuple[float, Any]:
        data = texts | {"tokenizer": None}
        run |= {"evaluate_every": 1, "checkpoint_every": 1, "patience": 1}
        config = make_config(data=data, init_from=str(finished), **run)
        still = dataclasses.replace(config.optimizer, learning_rate=STILL)
        config = dataclasses.replace(config, optimizer=still, model=type(config.model)())
        assert finetune(config, tmp_path / name) is ExitCode.DONE
        params = restore_params(tmp_path / name / "checkpoints")
        return read_report(tmp_path / name)["value"], params

    step = int((finished / "checkpoints/best").read_text())
    stored = restore_params(finished / "checkpoints", step)
    value, params = run("weights")
    assert value == read_report(finished)["value"]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-9), params, stored)
    assert "initialized at random" not in caplog.text
    _, params = run("sizes", init_weights=False)
    kernels = [tree["albert"]["pooler"]["kernel"] for tree in (params, stored)]
    assert kernels[0].shape == kernels[1].shape
    assert not np.allclose(*kernels)


def test_a_head_for_other_labels_is_initialized_with_a_warning(
    make_config: Any, finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for names in ({"good": "yes", "bad": "no"}, {"good": "5", "bad": "1", "fair": "3"}):
        data = tiny_tasks.write_texts(tmp_path, names)
        config = make_config(data=data | {"tokenizer": None}, init_from=str(finished))
        opened = open_finetuning(config, tmp_path / "run")
        caplog.clear()
        params = read_task_parameters(config, opened.start, opened.task)
        assert params["classifier"]["kernel"].shape == (32, len(names))
        assert "from seed 1: classifier/bias, classifier/kernel" in caplog.text


def test_another_vocabulary_is_refused_or_initialized(
    make_config: Any, texts: Any, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A larger one. `init_from` is opened once."""
    tokenizer = load_tokenizer(finished / "tokenizer")
    tiny_tasks.write_tokenizer(tmp_path / "other", "new")
    data = texts | {"tokenizer": str(tmp_path / "other")}
    message = f"another vocabulary than tokenizer {tmp_path}/other: {tokenizer.vocab_size} tokens"
    with pytest.raises(InputError, match=message):
        open_finetuning(make_config(data=data, init_from=str(finished)), tmp_path / "run")
    opened: list[Any] = []
    monkeypatch.setattr(
        initial_parameters,
        "open_weights",
        lambda path: opened.append(path) or open_weights(path),
    )
    config = make_config(data=data, init_from=str(finished), init_embeddings="fresh")
    start, task = (finetuning := open_finetuning(config, tmp_path / "run")).start, finetuning.task
    params = read_task_parameters(config, start, task)
    assert opened == [str(finished)]
    rows = params["albert"]["embeddings"]["word_embeddings"]["embedding"].shape[0]
    assert rows == start.model.vocab_size == tokenizer.vocab_size + 1
    step = int((finished / "checkpoints/best").read_text())
    stored = restore_params(finished / "checkpoints", step)
    jax.tree.map(
        np.testing.assert_array_equal, params["albert"]["encoder"], stored["albert"]["encoder"]
    )


@pytest.mark.parametrize(
    ("task", "write", "options", "metric", "least"),
    [
        pytest.param("sst-2", tiny_tasks.write_sst2, {}, "accuracy", 0.9, id="glue"),
        pytest.param("tagging", tiny_tasks.write_tags, {}, "f1", 0.9, id="tags"),
        pytest.param(
            *("squad", tiny_tasks.write_questions, {"head": "conditional"}, "f1", 80),
            id="spans_or_none",
        ),
        *(
            pytest.param(*case, id=name, marks=pytest.mark.slow)
            for name, *case in [
                ("scores", "text", tiny_tasks.write_scores, {}, "pearson", 0.7),
                ("spans", "squad", tiny_tasks.write_answerable, {}, "f1", 80),
                ("choices", "race", tiny_tasks.write_choices, {}, "accuracy", 0.8),
            ]
        ),
    ],
)
def test_every_kind_of_task_is_learned(
    make_config: Any,
    tmp_path: Path,
    task: str,
    write: Any,
    options: dict[str, Any],
    metric: str,
    least: float,
) -> None:
    config = make_config(TaskName(task), write(tmp_path), evaluate_every=60, checkpoint_every=60)
    config = dataclasses.replace(config, span=SpanConfig(**options))
    assert finetune(config, tmp_path / "run") is ExitCode.DONE
    report = read_report(tmp_path / "run")
    assert report["metric"] == metric
    assert report["value"] > least
    assert report["value"] > report["baseline"]
    for name in report["files"]:
        assert (tmp_path / "run" / name).stat().st_size
    _CHECKS[task](tmp_path / "run", report)


def predict(task: str, model: Path, **fields: Any) -> dict[str, Any]:
    options = PredictionOptions(model=str(model))
    ((_, result),) = TASKS[task].predict([RawInput(fields, "example 1")], options)
    assert TASKS[task].format(result)
    return result


def check_submission(workdir: Path, report: dict[str, Any]) -> None:
    lines = (workdir / "SST-2.tsv").read_text().splitlines()
    assert lines[0] == "index\tprediction"
    assert [line.split("\t")[0] for line in lines[1:]] == [str(number) for number in range(20)]
    assert {line.split("\t")[1] for line in lines[1:]} == {"0", "1"}
    predicted = predict("classify", workdir, text="word1 good word2")
    assert predicted["label"] == "1"
    assert predicted["probabilities"]["1"] > 0.5
    assert sum(predicted["probabilities"].values()) == pytest.approx(1)
    with pytest.raises(InputError, match="gives labels: use --task=classify"):
        predict("score", workdir, text="word1")


def check_scores(workdir: Path, report: dict[str, Any]) -> None:
    assert set(report["splits"]["dev"]["figures"]) == {"pearson", "spearman"}
    assert (workdir / "test_predictions.tsv").read_text().startswith("id\tprediction\n0\t")
    good, bad = (predict("score", workdir, text=f"word1 {key}")["score"] for key in ("good", "bad"))
    assert good > bad
    with pytest.raises(InputError, match="gives a score: use --task=score"):
        predict("classify", workdir, text="word1")


def check_tags(workdir: Path, report: dict[str, Any]) -> None:
    assert report["splits"]["dev"]["classes"] == ["BAD", "GOOD"]
    sentences = (workdir / "dev_predictions.txt").read_text().split("\n\n")
    assert len(sentences) == 60
    assert all(len(line.split(" ")) == 3 for line in sentences[0].splitlines())
    words = ["word1", "good", *["word2"] * 80, "bad"]  # more than a row holds
    predicted = predict("tag", workdir, text=" ".join(words))["tags"]
    assert [word for word, _ in predicted] == words
    assert ["good", "B-GOOD"] in predicted


def check_answers(workdir: Path, report: dict[str, Any]) -> None:
    answers = json.loads((workdir / "predictions.json").read_text())
    assert set(answers) == {str(number) for number in range(60)}
    candidates = json.loads((workdir / "nbest_predictions.json").read_text())
    for name, answer in answers.items():
        assert answer in ("", candidates[name][0]["text"])
    figures = report["splits"]["dev"]["figures"]
    if "null_threshold" in figures:
        assert figures["total"] == 30  # half of the articles; the others chose the threshold
        assert figures["all_total"] == 60
        assert figures["NoAns_f1"] > 50
        assert "" in answers.values()
    else:
        assert "" not in answers.values()
    context = "word3 word4 bad word5"
    predicted = predict("answer", workdir, question="word0 word1", context=context)
    best_candidate = predicted["candidates"][0]
    assert (
        context[best_candidate["start"] : best_candidate["end"]] == best_candidate["text"] == "bad"
    )
    if (threshold := figures.get("null_threshold")) is None:
        assert predicted["answer"] == "bad"
        return
    without = predict("answer", workdir, question="word0 word1", context="word3 word9 word5")
    assert predicted["null_score"] <= threshold < without["null_score"]
    assert (predicted["answer"], without["answer"]) == ("bad", "")
    fields = {"question": "word0 word1", "context": context}
    for given, answer in ((predicted["null_score"] - 1, ""), (predicted["null_score"], "bad")):
        options = PredictionOptions(model=str(workdir), null_threshold=given)
        ((_, found),) = TASKS["answer"].predict([RawInput(fields, "example 1")], options)
        assert found["answer"] == answer


def check_choices(workdir: Path, report: dict[str, Any]) -> None:
    figures = report["splits"]["dev"]["figures"]
    mean = (figures["middle_accuracy"] + figures["high_accuracy"]) / 2
    assert figures["accuracy"] == pytest.approx(mean)
    letters = json.loads((workdir / "dev_predictions.json").read_text())
    assert set(letters.values()) <= set("ABCD")
    assert len(letters) == 20
    options = ["bad", "fair", "good", "word1"]
    predicted = predict("choose", workdir, context="word2", question="word5 _ .", options=options)
    assert predicted["choice"] == "ABCD"[int(np.argmax(list(predicted["probabilities"].values())))]
    with pytest.raises(InputError, match="example 1: expected 4 options, found 3"):
        predict("choose", workdir, context="word2", question="word5 _ .", options=options[:3])


def test_the_next_command_is_one_that_the_model_can_do() -> None:
    scores = HeadConfig(("score",), ProblemType.REGRESSION)
    for task, head, expected in (
        (TaskName.STSB, scores, "score"),
        (TaskName.TEXT, scores, "score"),
        (TaskName.TEXT, HeadConfig(), "classify"),
        (TaskName.SQUAD, HeadConfig(), "answer"),
        (TaskName.EMBEDDING, None, "similarity"),
        (TaskName.TRANSLATION, None, "translate"),
    ):
        assert suggested_prediction(task, head) == expected


_CHECKS = {
    "sst-2": check_submission,
    "text": check_scores,
    "tagging": check_tags,
    "squad": check_answers,
    "race": check_choices,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_file": None}, "--config.data.train_file is missing"),
        ({"dev_file": "nowhere.tsv"}, "nowhere.tsv"),
        ({"label_column": "mood"}, "mood"),
        ({"labels": "pos,neutral"}, "train.tsv:2: label 'neg' is none of pos, neutral"),
        ({"tokenizer": None}, "--config.run.init_from is missing"),
        ({"max_seq_length": 128}, "max_seq_length (128) must be at most the model's"),
    ],
)
def test_a_mistake_is_reported_in_one_line_and_nothing_is_written(
    make_config: Any,
    texts: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    message: str,
) -> None:
    config = make_config(data=texts | changes)
    assert call(lambda: finetune(config, tmp_path / "run")) is ExitCode.BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "run").exists()


def test_rows_follow_a_model_that_reads_less(make_config: Any, texts: Any, tmp_path: Path) -> None:
    config = make_config(data=texts | {"max_seq_length": 128})
    opened = open_finetuning(config, tmp_path / "run", rows_follow=True)
    assert opened.config.data.max_seq_length == 64
    assert opened.lines[0] == "rows of 128 become rows of 64: the model reads no longer"


def test_other_data_in_a_workdir_are_rejected(
    make_config: Any, finished: Path, tmp_path: Path
) -> None:
    other = tiny_tasks.write_texts(tmp_path, {"good": "neg", "bad": "pos"})
    with pytest.raises(InputError, match="was trained on another dataset"):
        finetune(make_config(data=other | {"num_lengths": 2}), finished)
