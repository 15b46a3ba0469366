"""A run that detects replaced tokens, from its flags to its evaluation, export and fine-tuning."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from echoes import make_experiment, with_part, write_echoes

from albert_jax import AlbertForMaskedLM, AlbertForSequenceClassification, AlbertModel
from albert_jax.devices.mesh import make_mesh
from albert_jax.interop.names import WeightsError
from albert_jax.pretrained import read_pretrained
from albert_jax.settings import FieldError
from albert_jax.tasks.config import Generator
from experiments.cli.exit_codes import ExitCode
from experiments.converting.formats import Format, convert, list_losses, without_detection
from experiments.evaluation.held_out import HeldOutEvaluator, format_metrics
from experiments.evaluation.layers import evaluate_layers
from experiments.evaluation.trained_run import open_trained_run
from experiments.metrics.metrics_file import read_metrics
from experiments.pretrain import pretrain
from experiments.run import execution
from experiments.run import training as training_run
from experiments.run.config import ExperimentConfig
from experiments.run.initial_parameters import open_initial_weights, read_initial_parameters

STEPS = 20
OWN = {"generator": Generator.OWN, "generator_width": 0.5, "generator_layers": 1}


def make_config(corpus: Path, num_train_steps: int, **settings: Any) -> ExperimentConfig:
    every = num_train_steps // 2
    plain = make_experiment(corpus, num_train_steps=num_train_steps, evaluate_every=every)
    masked = with_part(plain, "data", corruption="always_mask")
    return with_part(masked, "objective", token_loss="replaced_tokens", **settings)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_echoes(tmp_path_factory.mktemp("echoes") / "corpus")


@pytest.fixture(scope="module")
def config(corpus: Path) -> ExperimentConfig:
    return make_config(corpus, STEPS, **OWN)


@pytest.fixture(scope="module", autouse=True)
def one_device_and_no_pictures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution, "make_mesh", lambda **_: make_mesh(devices=jax.devices()[:1]))
        patch.setattr(training_run, "draw_run", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def finished(config: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "finished"
    assert pretrain(config, path) is ExitCode.DONE
    return path


@pytest.mark.slow
def test_a_run_learns_to_tell_samples_from_text(corpus: Path, tmp_path: Path) -> None:
    """From guessing, whose recall and precision are the fraction of replaced tokens at most."""
    assert pretrain(make_config(corpus, 240), tmp_path) is ExitCode.DONE
    last = [e for e in read_metrics(tmp_path) if e["split"] == "validation"][-1]
    assert 0.05 < last["replaced_fraction"] < 0.2
    assert last["detection_recall"] > 0.6  # 0.88 when this was written
    assert last["detection_precision"] > 0.8
    assert last["detection_accuracy"] > 1 - last["replaced_fraction"] / 2
    assert last["sentence_order_accuracy"] > 0.8


def test_its_evaluation_is_that_of_the_run(finished: Path) -> None:
    opened = open_trained_run(finished, corpus_dir=None, step=STEPS)
    mesh = make_mesh(devices=jax.devices()[:1])
    evaluator = HeldOutEvaluator(opened.corpus, opened.config, mesh)
    metrics = evaluator.evaluate(opened.params)
    expected = [e for e in read_metrics(finished) if e["split"] == "validation"][-1]
    assert metrics == {name: pytest.approx(expected[name], rel=1e-5) for name in metrics}
    assert (finished / "samples.json").stat().st_size
    assert "detection       accuracy" in format_metrics(metrics, evaluator.baselines())
    layers = evaluate_layers(evaluator.measure, evaluator.model, opened.params)
    assert [layer.depth for layer in layers] == [0, 1]
    assert layers[-1].masked_lm_loss == pytest.approx(metrics["masked_lm_loss"], rel=1e-5)


def test_its_encoder_is_exported_and_fine_tuned_and_its_generator_stays(
    config: ExperimentConfig, finished: Path, tmp_path: Path
) -> None:
    stored = read_pretrained(finished, step=STEPS)
    parts = {"albert", "sop_classifier", "discriminator_predictions", "generator"}
    assert stored.params.keys() == parts
    encoder = without_detection(stored, Format.HUGGINGFACE)
    convert(encoder, None, Format.HUGGINGFACE, tmp_path / "encoder")
    _, params = AlbertModel.from_pretrained(tmp_path / "encoder")
    jax.tree.map(np.testing.assert_array_equal, params, stored.params["albert"])
    losses = " ".join(list_losses(stored, None, Format.HUGGINGFACE))
    assert all(f"{name}, of replaced-token detection" in losses for name in parts - {"albert"})
    with pytest.raises(WeightsError, match="no name for discriminator_predictions/dense/bias"):
        convert(stored, None, Format.HUGGINGFACE, tmp_path / "whole")
    convert(stored, None, Format.ORBAX, tmp_path / "workdir")
    assert read_pretrained(tmp_path / "workdir").params.keys() == parts

    with pytest.raises(WeightsError, match="masked-LM head is that of a generator"):
        AlbertForMaskedLM.from_pretrained(finished)
    classifier = AlbertForSequenceClassification(config.model)
    started = read_initial_parameters(open_initial_weights(str(finished)), classifier, seed=0)
    best = read_pretrained(finished).params["albert"]
    jax.tree.map(np.testing.assert_array_equal, started["albert"], best)


def test_a_generator_is_no_deeper_than_its_discriminator(config: ExperimentConfig) -> None:
    with pytest.raises(FieldError, match=r"objective\.generator_layers must be at most .* got 3"):
        with_part(config, "objective", generator_layers=3)
