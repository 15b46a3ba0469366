"""Models of transformers as teachers: their predictions recorded, and a student trained on them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from echoes import make_experiment, with_part, write_echoes
from short_runs import draw_nothing, use_one_device

from albert_jax import AlbertForMaskedLM, AlbertForPreTraining
from albert_jax.batch import PretrainingBatch
from albert_jax.devices.mesh import make_mesh
from albert_jax.tasks.distillation.teacher import predict_top_tokens
from data_pipeline.corpus.reader import open_corpus
from data_pipeline.errors import InputError
from experiments.cli.exit_codes import ExitCode
from experiments.distillation.__main__ import record_teacher
from experiments.distillation.transformers_teacher import TransformersTeacher, sequences_of
from experiments.metrics.metrics_file import read_metrics
from experiments.pretrain import pretrain
from experiments.run.config import ExperimentConfig
from experiments.run.curriculum import Curriculum

pytestmark = pytest.mark.interop

SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 32,
    "vocab_size": 21,
    "initializer_range": 0.3,
}


@pytest.fixture(scope="module", autouse=True)
def one_device() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        use_one_device(patch)
        draw_nothing(patch)
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_echoes(tmp_path_factory.mktemp("echoes") / "corpus")


def save_model(path: Path, corpus: Path, name: str, **changes: Any) -> Path:
    """Write a model of transformers with the corpus's vocabulary, of random weights."""
    import torch
    import transformers

    torch.manual_seed(0)
    kind = getattr(transformers, f"{name.partition('For')[0].removesuffix('Model')}Config")
    getattr(transformers, name)(kind(**(SIZES | changes))).save_pretrained(path)
    tokenizer = open_corpus(corpus).load_tokenizer()
    (path / "vocab.txt").write_text("".join(f"{token}\n" for token in tokenizer.tokens))
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": tokenizer.lower_case}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


def make_config(corpus: Path, teacher: Path, **parts: Any) -> ExperimentConfig:
    config = make_experiment(corpus, num_train_steps=12, log_every=1)
    return with_part(config, "distillation", teacher=str(teacher), top_k=4, temperature=1.5)


def first_batch(corpus: Path, config: ExperimentConfig) -> PretrainingBatch:
    batches = Curriculum(open_corpus(corpus), config, make_mesh(devices=jax.devices()[:1])).batches(
        0
    )
    batch = next(batches)
    batches.close()
    return batch


@pytest.mark.parametrize("name", ["BertForMaskedLM", "DistilBertForMaskedLM"])
def test_each_pair_of_a_packed_row_is_read_alone(corpus: Path, tmp_path: Path, name: str) -> None:
    import torch
    import transformers

    config = make_config(corpus, save_model(tmp_path / "model", corpus, name))
    batch = first_batch(corpus, config)
    assert np.max(batch.sequence_ids) > 1
    found = TransformersTeacher(str(tmp_path / "model"), config.distillation, "cpu").predict(batch)
    model = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "model").eval()
    used = 0
    for row, slot in np.argwhere(np.asarray(batch.masked_lm_weights) > 0):
        position = int(batch.masked_lm_positions[row, slot])
        pair = np.asarray(batch.sequence_ids)[row] == np.asarray(batch.sequence_ids)[row, position]
        inputs = {"input_ids": torch.tensor(np.asarray(batch.input_ids)[row, pair][None]).long()}
        if name.startswith("Bert"):
            types = np.asarray(batch.token_type_ids)[row, pair][None]
            inputs["token_type_ids"] = torch.tensor(types).long()
        with torch.no_grad():
            logits = model(**inputs).logits[0, position - int(np.argmax(pair))].numpy() / 1.5
        log_probs = logits - np.log(np.exp(logits.astype(np.float64)).sum())
        best = np.argsort(-log_probs)[:4]
        assert found.token_ids[row, slot].tolist() == best.tolist()
        np.testing.assert_allclose(
            found.log_probs[row, slot], log_probs[best], rtol=1e-4, atol=1e-5
        )
        used += 1
    assert used == sum(len(one.slots) for one in sequences_of(batch))


def test_an_albert_predicts_the_same_in_transformers_and_here(corpus: Path, tmp_path: Path) -> None:
    path = save_model(
        tmp_path / "albert", corpus, "AlbertForMaskedLM", embedding_size=16, hidden_act="gelu_new"
    )
    config = make_config(corpus, path)
    batch = first_batch(corpus, config)
    theirs = TransformersTeacher(str(path), config.distillation, "cpu").predict(batch)
    model, params = AlbertForMaskedLM.from_pretrained(path)
    ours = predict_top_tokens(
        *(AlbertForPreTraining(model.config), params),
        *(jax.tree.map(jax.numpy.asarray, batch), config.distillation),
    )
    used = np.asarray(batch.masked_lm_weights) > 0
    np.testing.assert_array_equal(
        np.asarray(ours.token_ids)[used], np.asarray(theirs.token_ids)[used]
    )
    np.testing.assert_allclose(
        np.asarray(ours.log_probs)[used], np.asarray(theirs.log_probs)[used], rtol=1e-3, atol=1e-4
    )

    # The same run, with the teacher beside it and with what was recorded.
    record_teacher(config, tmp_path / "recording")
    losses, accuracies = [], []
    for number, teacher in enumerate((path, tmp_path / "recording")):
        workdir = tmp_path / str(number)
        assert pretrain(make_config(corpus, teacher), workdir) is ExitCode.DONE
        entry = read_metrics(workdir)[0]
        losses.append(entry["distillation_loss"])
        accuracies.append(entry["teacher_accuracy"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert accuracies[0] == accuracies[1]


def test_a_model_without_a_masked_lm_head_is_refused(corpus: Path, tmp_path: Path) -> None:
    bare = save_model(tmp_path / "bare", corpus, "BertModel")
    with pytest.raises(InputError, match=r"teacher=.*bare lacks weights: cls\.predictions"):
        record_teacher(make_config(corpus, bare), tmp_path / "recording")
    larger = save_model(tmp_path / "larger", corpus, "BertForMaskedLM", vocab_size=24)
    with pytest.raises(InputError, match=r"must have the vocabulary of corpus .*: 24 tokens there"):
        record_teacher(make_config(corpus, larger), tmp_path / "recording")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="nothing is no masked language model: "):
        record_teacher(make_config(corpus, tmp_path / "nothing"), tmp_path / "recording")
    assert not (tmp_path / "recording").exists()
