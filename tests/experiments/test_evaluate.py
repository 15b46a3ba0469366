"""Held-out evaluation: metrics, baselines, layers and probes."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from echoes import make_experiment, with_part, write_echoes
from etils import epath
from memory_stores import memory_stores

from albert_jax.devices.mesh import make_mesh
from albert_jax.model import AlbertForPreTraining, AlbertModel
from albert_jax.settings import FieldError
from albert_jax.tasks.models import AlbertForMaskedLM
from data_pipeline.config import SentenceObjective
from data_pipeline.corpus.reader import open_corpus
from data_pipeline.errors import InputError
from data_pipeline.pretraining.dataset import HeldOutDataset
from data_pipeline.tokenizers.albert import AlbertTokenizer
from data_pipeline.tokenizers.wordpiece import WordPieceTokenizer
from experiments import evaluate, probe
from experiments.cli.command import call
from experiments.cli.exit_codes import ExitCode
from experiments.evaluate import open_evaluated
from experiments.evaluation import probing
from experiments.evaluation.held_out import HeldOutEvaluator, accuracy_interval, format_metrics
from experiments.evaluation.layers import DEPTH_FILE, evaluate_layers, format_layers
from experiments.evaluation.probing import (
    PROBE_FILE,
    ProbeExamples,
    fit_logistic_regression,
    fit_probe,
    make_features,
)
from experiments.evaluation.trained_run import TrainedRun
from experiments.run.config import ExperimentConfig
from experiments.run.resumption import DataIdentity
from experiments.run.workdir import check_tokenizer, open_pretraining_workdir


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_echoes(tmp_path_factory.mktemp("echoes") / "corpus")


def make_evaluator(corpus: Path, devices: int, **run: Any) -> HeldOutEvaluator:
    config = make_experiment(corpus, num_train_steps=60, **run)
    return HeldOutEvaluator(open_corpus(corpus), config, make_mesh(devices=jax.devices()[:devices]))


def test_the_interval_of_an_accuracy() -> None:
    """Worked by hand: (0.6 + 0.0192 ± 1.96 · 0.04996) / 1.0384; all of 10 do not reach past 1."""
    np.testing.assert_allclose(accuracy_interval(0.6, 100), (0.50200, 0.69060), atol=1e-5)
    low, high = accuracy_interval(1.0, 10)
    np.testing.assert_allclose((low, high), (0.72246, 1), atol=1e-5)


def test_baselines_count_the_words_under_the_masks(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven masked words, three of one kind, two each of two others; unused slots do not count."""
    batches = [
        {"masked_lm_ids": np.array([[5, 5, 6, 0]]), "masked_lm_weights": np.array([[1, 1, 1, 0]])},
        {"masked_lm_ids": np.array([[7, 6, 5, 7]]), "masked_lm_weights": np.array([[1, 1, 1, 1]])},
    ]
    evaluator = make_evaluator(corpus, devices=1)
    monkeypatch.setattr(HeldOutDataset, "batches", lambda _: iter(batches))
    accuracy, entropy = evaluator.baselines()
    assert accuracy == pytest.approx(3 / 7)
    assert entropy == pytest.approx(3 / 7 * np.log(7 / 3) + 4 / 7 * np.log(7 / 2))


def test_figures_do_not_depend_on_the_batch_or_the_devices(corpus: Path) -> None:
    config = make_experiment(corpus, num_train_steps=60)
    tokens = jnp.zeros((1, 1), jnp.int32)
    params = AlbertForPreTraining(config.model).init(jax.random.key(3), tokens)["params"]
    wanted = {"evaluation_pairs": None}
    whole = make_evaluator(corpus, 1, evaluation_batch_size=100, **wanted).evaluate(params)
    parts = make_evaluator(corpus, 2, evaluation_batch_size=14, **wanted).evaluate(params)
    assert whole["pairs"] == parts["pairs"] == 100
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        assert parts[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    assert format_metrics(whole, make_evaluator(corpus, 1).baselines()).count("\n") == 3


def test_a_model_of_another_format_is_evaluated_with_the_heads_that_it_has(
    corpus: Path, tmp_path: Path
) -> None:
    """Without the sentence head and the pooler the numbers of masked LM are the same."""
    config = make_experiment(corpus, num_train_steps=60).model
    tokenizer = AlbertTokenizer(open_corpus(corpus).load_tokenizer())
    whole, path = AlbertForPreTraining(config), tmp_path / "whole"
    params = jax.jit(whole.initialize)(jax.random.key(3))
    whole.save_pretrained(path, params, tokenizer)
    masked_lm = {"albert": {k: v for k, v in params["albert"].items() if k != "pooler"}}
    masked_lm |= {"predictions": params["predictions"]}
    AlbertForMaskedLM(config).save_pretrained(tmp_path / "masked_lm", masked_lm, tokenizer)
    found = []
    for name in ("whole", "masked_lm"):
        opened = open_evaluated(None, str(tmp_path / name), str(corpus), None)
        assert opened.config.evaluation_seq_length == 32
        evaluator = HeldOutEvaluator(
            opened.corpus, opened.config, make_mesh(devices=jax.devices()[:1])
        )
        found.append(evaluator.evaluate(opened.params))
    assert found[0]["pairs"] == 100 and found[0].keys() - found[1].keys() == {
        "pairs",
        "sentence_order_accuracy",
        "sentence_order_loss",
    }
    expected = make_evaluator(corpus, 1).evaluate(params)
    assert found[1].pop("loss") == pytest.approx(found[1]["masked_lm_loss"], rel=1e-5)
    # The gap is a difference of two losses, and as exact as they are.
    gap = pytest.approx(expected.pop("context_gap"), abs=1e-5 * expected["masked_lm_loss"])
    for one in found:
        assert one.pop("context_gap") == gap
        assert one == {name: pytest.approx(expected[name], rel=1e-5) for name in one}


def test_a_model_that_cannot_be_evaluated_is_refused(corpus: Path, tmp_path: Path) -> None:
    config = make_experiment(corpus, num_train_steps=60).model
    words = [*open_corpus(corpus).load_tokenizer().tokens[:-1], "other"]
    for model in (AlbertForMaskedLM(config), AlbertModel(config)):
        path, tokenizer = (
            tmp_path / type(model).__name__,
            AlbertTokenizer(WordPieceTokenizer(words)),
        )
        model.save_pretrained(path, jax.jit(model.initialize)(jax.random.key(3)), tokenizer)
    with pytest.raises(InputError, match=r"--model=.*AlbertModel has no masked-LM head"):
        open_evaluated(None, str(tmp_path / "AlbertModel"), str(corpus), None)
    other = (
        r"another vocabulary than corpus .*: 1 of \d+ ids differ, such as .*build .*--tokenizer="
    )
    with pytest.raises(InputError, match=other):
        open_evaluated(None, str(tmp_path / "AlbertForMaskedLM"), str(corpus), None)
    with pytest.raises(InputError, match="--model needs --corpus_dir"):
        open_evaluated(None, "model", None, None)
    for both in (None, None), ("run", "model"):
        with pytest.raises(InputError, match="give either --workdir=, a run, or --model="):
            open_evaluated(*both, str(corpus), None)


def test_a_corpus_of_other_pieces_or_with_nothing_held_out_is_refused(
    corpus: Path, tmp_path: Path
) -> None:
    workdir = tmp_path / "run"
    config = make_experiment(corpus, num_train_steps=60)
    identity = DataIdentity("corpus", "--config.data.corpus_dir", str(corpus), "0" * 64)
    with open_pretraining_workdir(workdir, config, open_corpus(corpus), identity):
        pass
    check_tokenizer(workdir, open_corpus(write_echoes(tmp_path / "same", documents=10)))
    with pytest.raises(InputError, match="was encoded with another tokenizer"):
        check_tokenizer(workdir, open_corpus(write_echoes(tmp_path / "other", words=9)))
    with pytest.raises(InputError, match="holds no text out for validation"):
        make_evaluator(write_echoes(tmp_path / "empty", held_out=0), 1)
    with pytest.raises(InputError, match=r"--config\.run\.evaluation_batch_size: .* 3 rows"):
        make_evaluator(corpus, 2, evaluation_batch_size=3)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def resident_megabytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def test_evaluations_leave_no_descriptors(corpus: Path) -> None:
    evaluator = make_evaluator(corpus, 1)

    def evaluate() -> int:
        seen: list[int] = []
        evaluator.measure(lambda batch: seen.append(len(batch.input_ids)) or {})  # type: ignore[func-returns-value]
        assert seen
        return open_descriptors()

    assert len({evaluate() for _ in range(5)}) == 1


@pytest.mark.slow
def test_evaluations_leave_no_memory(corpus: Path) -> None:
    evaluator = make_evaluator(corpus, 1)
    params = make_params(make_experiment(corpus, num_train_steps=60))

    def evaluate(times: int) -> tuple[int, float]:
        for _ in range(times):
            evaluator.evaluate(params)
        return open_descriptors(), resident_megabytes()

    descriptors, before = evaluate(50)
    again, after = evaluate(100)
    assert descriptors == again
    assert after - before < 40  # each evaluation once left 3.5


def make_params(config: ExperimentConfig) -> Any:
    tokens = jnp.zeros((1, 1), jnp.int32)
    return AlbertForPreTraining(config.model).init(jax.random.key(3), tokens)["params"]


def test_the_head_is_measured_at_what_it_was_asked(corpus: Path) -> None:
    """Masked LM at the same pairs; the next sentence at its own; nothing of a head that is idle."""
    params = make_params(make_experiment(corpus, num_train_steps=60))
    figures, random_segments = {}, None
    for objective in SentenceObjective:
        config = with_part(
            make_experiment(corpus, num_train_steps=60), "data", sentence_objective=objective
        )
        evaluator = HeldOutEvaluator(
            open_corpus(corpus), config, make_mesh(devices=jax.devices()[:1])
        )
        figures[objective] = found = evaluator.evaluate(params)
        random_segments = evaluator._random_segments or random_segments
        text = format_metrics(found, evaluator.baselines())
        assert ("sentence order" in text) is (objective == "sop")
        assert ("next sentence" in text) is (objective == "nsp")
        losses = [value for name, value in found.items() if name.endswith("_loss")]
        assert found["loss"] == pytest.approx(sum(losses))
    sop, nsp, none = figures["sop"], figures["nsp"], figures["none"]
    for name in ("masked_lm_loss", "masked_lm_accuracy", "context_gap"):
        assert sop[name] == nsp[name] == none[name]
    common = {"loss", "masked_lm_loss", "masked_lm_accuracy", "context_gap"}
    assert none.keys() == common
    assert sop.keys() == common | {"sentence_order_loss", "sentence_order_accuracy", "pairs"}
    assert nsp.keys() == common | {"next_sentence_loss", "next_sentence_accuracy", "pairs"}
    labels = [
        batch["sentence_order_labels"][batch["sentence_order_weights"] > 0]
        for batch in random_segments.batches()
    ]
    assert nsp["pairs"] == sum(map(len, labels))
    assert nsp["next_sentence_loss"] != sop["sentence_order_loss"]


def test_the_evaluator_s_length_may_stand_apart_from_the_run_s(corpus: Path) -> None:
    short = with_part(make_experiment(corpus, num_train_steps=60), "data", max_seq_length=16)
    apart = with_part(short, "run", evaluation_seq_length=32)
    mesh = make_mesh(devices=jax.devices()[:1])
    params = make_params(apart)
    assert HeldOutEvaluator(open_corpus(corpus), apart, mesh).evaluate(params) == make_evaluator(
        corpus, 1
    ).evaluate(params)
    with pytest.raises(FieldError, match=r"evaluation_seq_length must be .* or none, got 7"):
        with_part(short, "run", evaluation_seq_length=7)
    with pytest.raises(FieldError, match=r"run.evaluation_seq_length must be at most .* got 33"):
        with_part(short, "run", evaluation_seq_length=33)


def test_every_depth_is_that_of_a_model_that_ends_there(corpus: Path) -> None:
    """As all layers share their parameters, depth d is a model of d layers."""
    config = make_experiment(corpus, num_train_steps=60)
    params = make_params(config)
    evaluator = make_evaluator(corpus, 1)
    never, always = (
        1e-6,
        100.0,
    )  # nats: no distribution of the model is below one and above the other
    evaluated = evaluate_layers(evaluator.measure, evaluator.model, params, (never, always))
    depths = evaluated.layers
    assert [one.depth for one in depths] == [0, 1, 2]
    for halting, layer in zip(evaluated.halting, (depths[2], depths[1]), strict=True):
        assert halting.layers == layer.depth
        assert halting.masked_lm_accuracy == pytest.approx(layer.masked_lm_accuracy)
        assert halting.masked_lm_loss == pytest.approx(layer.masked_lm_loss)
    mesh = make_mesh(devices=jax.devices()[:1])
    for layers in (1, 2):
        shallow = with_part(config, "model", num_hidden_layers=layers)
        expected = HeldOutEvaluator(open_corpus(corpus), shallow, mesh).evaluate(params)
        assert depths[layers].masked_lm_loss == pytest.approx(expected["masked_lm_loss"], rel=1e-5)
        assert depths[layers].masked_lm_accuracy == expected["masked_lm_accuracy"]
    assert depths[0].masked_lm_loss != pytest.approx(depths[1].masked_lm_loss, rel=1e-4)
    assert format_layers(evaluated).count("\n") == 3 + 3


class Given(SimpleNamespace):
    """Flags as they are read: attributes, and items with a value."""

    def __getitem__(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(value=getattr(self, name))


@pytest.mark.parametrize("as_json", [False, True])
def test_results_are_printed_even_where_the_plot_cannot_be_written(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    as_json: bool,
) -> None:
    config = make_experiment(corpus, num_train_steps=60)
    opened = TrainedRun(config, open_corpus(corpus), make_params(config))
    monkeypatch.setattr(evaluate, "open_evaluated", lambda *_: opened)
    given = Given(mteb=[], workdir=str(tmp_path), model=None, corpus_dir=None, step=None)
    given.every_depth, given.halting_entropy, given.json = True, [], as_json
    monkeypatch.setattr(evaluate, "flags", SimpleNamespace(FLAGS=given))
    (tmp_path / DEPTH_FILE).mkdir()  # as in a directory that others own, it cannot be replaced
    assert call(evaluate.main) == ExitCode.BAD_INPUT
    out, errors = capsys.readouterr()
    assert "every_depth" in json.loads(out) if as_json else "layers applied" in out
    assert DEPTH_FILE in errors


def test_the_accuracies_of_a_probe_go_into_a_workdir_on_a_store(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_experiment(corpus, num_train_steps=60)
    opened = TrainedRun(config, open_corpus(corpus), make_params(config))
    monkeypatch.setattr(probe, "open_trained_run", lambda *_, **__: opened)
    monkeypatch.setattr(probe, "probe_objective", lambda *_, **__: (0.75, 100))
    given = Given(workdir="gs://bucket/run", corpus_dir=None, step=None, num_pairs=64)
    monkeypatch.setattr(probe, "flags", SimpleNamespace(FLAGS=given))
    with memory_stores(monkeypatch):
        assert call(probe.main) == ExitCode.DONE
        content = json.loads((epath.Path("gs://bucket/run") / PROBE_FILE).read_text())
    assert content["accuracies"]["sentence_order_probe"] == 0.75


def test_a_probe_finds_what_can_be_predicted_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    features, noise = rng.normal(size=(600, 12)), rng.integers(2, size=600).astype(float)
    labels = (features[:, 2] - features[:, 5] + 1 > 0).astype(float)
    probe = fit_probe(ProbeExamples(features[:400], labels[:400]))
    assert probe.score(features[400:], labels[400:]) > 0.95
    again = fit_probe(ProbeExamples(features[:400], labels[:400]))
    np.testing.assert_array_equal(probe[-1].coef_, again[-1].coef_)
    blind = fit_probe(ProbeExamples(features[:400], noise[:400]))
    assert abs(blind.score(features[400:], noise[400:]) - 0.5) < 0.12


@pytest.mark.parametrize("penalty", [1e-3, 1.0])
def test_a_probe_is_where_the_gradient_of_its_penalized_loss_is_zero(penalty: float) -> None:
    """The mean loss plus half the penalty times the squared weights, the bias left out."""
    rng = np.random.default_rng(1)
    features = rng.normal(3.0, 2.0, size=(200, 6))
    labels = (features[:, 0] + rng.normal(size=200) > 3).astype(float)
    probe = fit_logistic_regression(ProbeExamples(features, labels), penalty)
    x = (features - features.mean(0)) / features.std(0)
    weights, bias = probe[-1].coef_[0], probe[-1].intercept_
    errors = 1 / (1 + np.exp(-(x @ weights + bias))) - labels
    np.testing.assert_allclose(x.T @ errors / 200 + penalty * weights, 0, atol=1e-6)
    assert errors.mean() == pytest.approx(0, abs=1e-6)


def test_probes_are_fitted_to_the_same_pairs_whatever_the_batches(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[ProbeExamples] = []

    def remember(examples: ProbeExamples) -> Any:
        fitted.append(examples)
        return fit_logistic_regression(examples, 1.0)

    monkeypatch.setattr(probing, "fit_probe", remember)
    scores = [
        probing.probe_objective(
            SentenceObjective.SOP,
            open_corpus(corpus),
            make_experiment(corpus, num_train_steps=60, evaluation_batch_size=size),
            lambda batch: jnp.asarray(batch["input_ids"], jnp.float32),
            num_pairs=20,
        )
        for size in (8, 20)
    ]
    assert len(fitted[0].labels) == 20 and 0 < fitted[0].labels.sum() < 20
    np.testing.assert_array_equal(fitted[0].features, fitted[1].features)
    assert scores[0] == scores[1]


def test_a_probe_sees_segments_and_no_padding(corpus: Path) -> None:
    config = make_experiment(corpus, num_train_steps=60)
    features = make_features(AlbertModel(config.model), make_params(config)["albert"])
    batch = next(make_evaluator(corpus, 1, evaluation_batch_size=4).dataset.batches())
    seen = np.asarray(features(batch))
    hidden = config.model.hidden_size
    assert seen.shape == (4, 5 * hidden)
    padded = batch | {"input_ids": np.where(batch["sequence_ids"] > 0, batch["input_ids"], 9)}
    np.testing.assert_allclose(features(padded), seen, atol=1e-5)
    outputs = AlbertModel(config.model).apply(
        {"params": make_params(config)["albert"]},
        batch["input_ids"],
        token_type_ids=batch["token_type_ids"],
        position_ids=batch["position_ids"],
        sequence_ids=batch["sequence_ids"],
    )
    second = (batch["token_type_ids"][0] == 1) & (batch["sequence_ids"][0] > 0)
    mean = np.asarray(outputs.last_hidden_state)[0][second].mean(0)
    np.testing.assert_allclose(seen[0, 2 * hidden : 3 * hidden], mean, atol=1e-5)
