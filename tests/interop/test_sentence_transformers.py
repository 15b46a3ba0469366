"""sentence-transformers loads what is exported for it, and MTEB takes a model as an encoder."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.stats
from tiny_models import TINY
from tiny_vocabularies import trained

from albert_jax import AlbertForPreTraining, Pooling
from albert_jax.pretrained import read_pretrained
from albert_jax.tasks.embedding_files import VectorForm
from data_pipeline import AlbertTokenizer
from data_pipeline.errors import InputError
from experiments.converting.formats import Format, convert
from experiments.predict import TASKS
from experiments.prediction.inference import put_in_order
from experiments.prediction.mteb import (
    MtebEncoder,
    evaluate_on_mteb,
    format_results,
    open_tasks,
)
from experiments.tasks.raw_inputs import PredictionOptions, RawInput

pytestmark = pytest.mark.interop
TEXTS = ["The x.", "hello the hello (x)", "don't", "x x x x x x x the the 2 hello", "É the"]


@pytest.fixture
def tokenizer() -> AlbertTokenizer:
    return AlbertTokenizer(trained())


def write_model(directory: Path, tokenizer: AlbertTokenizer, form: VectorForm) -> Path:
    """Export a model with heads, which vectors do not need."""
    config = dataclasses.replace(
        TINY,
        vocab_size=tokenizer.vocab_size,
        hidden_size=8,
        max_position_embeddings=24,
        initializer_range=0.5,  # so that texts have different vectors
    )
    model = AlbertForPreTraining(config)
    params = model.initialize(jax.random.key(0))
    model.save_pretrained(directory / "source", params, tokenizer)
    stored = read_pretrained(directory / "source")
    convert(stored, tokenizer, Format.SENTENCE_TRANSFORMERS, directory / "model", form=form)
    return directory / "model"


def our_vectors(model: Path, texts: list[str]) -> np.ndarray:
    inputs = [RawInput({"text": text}, "test") for text in texts]
    results = TASKS["encode"].predict(inputs, PredictionOptions(str(model), truncate=True))
    return np.stack([one["embedding"] for one in put_in_order(results, len(texts))])


@pytest.mark.parametrize(
    "form",
    [
        VectorForm(Pooling.MEAN, True),
        VectorForm(Pooling.MEAN, False),
        VectorForm(Pooling.FIRST, True),
    ],
    ids=str,
)
def test_sentence_transformers_computes_the_same_vectors(
    form: VectorForm, tokenizer: AlbertTokenizer, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    model = write_model(tmp_path, tokenizer, form)
    theirs = SentenceTransformer(str(model), device="cpu")
    assert theirs.max_seq_length == 24
    found = theirs.encode(TEXTS)
    ours = our_vectors(model, TEXTS)
    assert ours.shape == found.shape == (len(TEXTS), 8)
    np.testing.assert_allclose(ours, found, atol=1e-5)
    assert np.allclose(np.linalg.norm(ours, axis=1), 1) is form.normalize
    # What it saves, with the names of its own version, is read here as well.
    theirs.save_pretrained(str(tmp_path / "saved"))
    np.testing.assert_allclose(our_vectors(tmp_path / "saved", TEXTS), ours, atol=1e-6)


@pytest.mark.filterwarnings("ignore:The task 'STSBenchmark' is superseded:UserWarning")
def test_mteb_scores_a_model_on_local_files(tokenizer: AlbertTokenizer, tmp_path: Path) -> None:
    pairs = [
        ("the x", "The x", 5),
        ("hello", "hello the", 4),
        ("x x", "don't", 0.5),
        ("2", "hello", 1),
    ]
    rows = ["\t".join(map(str, row)) for row in [("sentence1", "sentence2", "score"), *pairs]]
    (tmp_path / "dev.tsv").write_text("\n".join(rows) + "\n")
    model = write_model(tmp_path, tokenizer, VectorForm(Pooling.MEAN, True))
    results = evaluate_on_mteb(str(model), ["STSBenchmark"], tmp_path)
    (scores,) = results["STSBenchmark"]["scores"]["validation"]
    first, second, labels = zip(*pairs, strict=True)
    cosines = (our_vectors(model, list(first)) * our_vectors(model, list(second))).sum(axis=1)
    expected = float(scipy.stats.pearsonr(cosines, labels).statistic)
    # Cosines in float32 err by some 1e-7; a correlation divides that by their spread.
    assert scores["cosine_pearson"] == pytest.approx(expected, abs=1e-6 / float(np.std(cosines)))
    assert scores["main_score"] == scores["cosine_spearman"]
    (line,) = format_results(results)
    assert line.startswith(f"STSBenchmark, validation, default: {scores['main_score']:.4f} (cosi")


def test_other_tasks_take_the_encoder_and_unknown_ones_are_refused(
    tokenizer: AlbertTokenizer, tmp_path: Path
) -> None:
    import mteb

    model = write_model(tmp_path, tokenizer, VectorForm(Pooling.MEAN, True))
    encoder = MtebEncoder(str(model), "1")
    assert isinstance(encoder, mteb.EncoderProtocol)
    assert encoder.mteb_model_meta.name == "albert-jax/model"
    vectors = encoder.encode([{"text": TEXTS[:3]}, {"text": [*TEXTS[3:], " "]}])
    np.testing.assert_allclose(vectors[:-1], our_vectors(model, TEXTS), atol=1e-6)
    np.testing.assert_allclose(np.diag(encoder.similarity(vectors, vectors)), 1, atol=1e-5)
    with pytest.raises(InputError, match="--mteb=STSBenchmrk: MTEB has no such task"):
        open_tasks(["STSBenchmrk"], None)
    with pytest.raises(InputError, match="which --mteb does not name"):
        open_tasks(["STS12"], tmp_path)
