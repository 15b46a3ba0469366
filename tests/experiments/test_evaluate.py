"""The ruler: its figures, what they are compared with, and what may be measured by it."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from echoes import make_experiment, write_echoes

from albert_jax.model import AlbertForPreTraining
from albert_jax.parallel import make_mesh
from data_pipeline.corpus import open_corpus
from data_pipeline.errors import InputError
from experiments.evaluate import Ruler, describe, wilson_interval
from experiments.pretrain import open_pretraining_workdir
from experiments.workdir import check_tokenizer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_echoes(tmp_path_factory.mktemp("echoes") / "corpus")


def make_ruler(corpus: Path, devices: int, **run: Any) -> Ruler:
    config = make_experiment(corpus, num_train_steps=60, **run)
    return Ruler(open_corpus(corpus), config, make_mesh(devices=jax.devices()[:devices]))


def test_wilson_s_interval() -> None:
    """Worked by hand: (0.6 + 0.0192 ± 1.96 · 0.04996) / 1.0384; all of 10 do not reach past 1."""
    np.testing.assert_allclose(wilson_interval(0.6, 100), (0.50200, 0.69060), atol=1e-5)
    low, high = wilson_interval(1.0, 10)
    np.testing.assert_allclose((low, high), (0.72246, 1), atol=1e-5)


def test_baselines_count_the_words_under_the_masks(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven masked words, three of one kind and two each of two others; unused slots count not."""
    batches = [
        {"masked_lm_ids": np.array([[5, 5, 6, 0]]), "masked_lm_weights": np.array([[1, 1, 1, 0]])},
        {"masked_lm_ids": np.array([[7, 6, 5, 7]]), "masked_lm_weights": np.array([[1, 1, 1, 1]])},
    ]
    monkeypatch.setattr("experiments.evaluate.evaluation_batches", lambda *_, **__: iter(batches))
    accuracy, entropy = make_ruler(corpus, devices=1).baselines()
    assert accuracy == pytest.approx(3 / 7)
    assert entropy == pytest.approx(3 / 7 * np.log(7 / 3) + 4 / 7 * np.log(7 / 2))


def test_figures_do_not_depend_on_the_batch_or_the_devices(corpus: Path) -> None:
    config = make_experiment(corpus, num_train_steps=60)
    tokens = jnp.zeros((1, 1), jnp.int32)
    params = AlbertForPreTraining(config.model).init(jax.random.key(3), tokens)["params"]
    wanted = {"evaluation_pairs": None}
    whole = make_ruler(corpus, 1, evaluation_batch_size=100, **wanted).evaluate(params)
    parts = make_ruler(corpus, 2, evaluation_batch_size=14, **wanted).evaluate(params)
    assert whole["pairs"] == parts["pairs"] == 100
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        assert parts[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    assert describe(whole, make_ruler(corpus, 1).baselines()).count("\n") == 3


def test_a_corpus_of_other_pieces_or_with_nothing_held_out_is_refused(
    corpus: Path, tmp_path: Path
) -> None:
    workdir = tmp_path / "run"
    open_pretraining_workdir(
        workdir, make_experiment(corpus, num_train_steps=60), open_corpus(corpus)
    )
    check_tokenizer(workdir, open_corpus(write_echoes(tmp_path / "same", documents=10)))
    with pytest.raises(InputError, match="was encoded with another tokenizer"):
        check_tokenizer(workdir, open_corpus(write_echoes(tmp_path / "other", words=9)))
    with pytest.raises(InputError, match="holds no text out for validation"):
        make_ruler(write_echoes(tmp_path / "empty", held_out=0), 1)
    with pytest.raises(InputError, match=r"--config\.run\.evaluation_batch_size: .* 3 rows"):
        make_ruler(corpus, 2, evaluation_batch_size=3)
