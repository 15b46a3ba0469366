"""Training on imported records: the order of rows, resumption, processes, settings and damage."""

import itertools
import json

import numpy as np
import pytest
from tiny_corpora import make_corpus, random_lengths

from albert_jax.settings import FieldError
from data_pipeline import randomness
from data_pipeline.config import DataConfig, WordStartRule
from data_pipeline.errors import InputError
from data_pipeline.pretraining.dataset import PretrainingDataset, TrainingDataset, load_vocabulary
from data_pipeline.pretraining.records import RecordDataset
from data_pipeline.pretraining.tfrecord import import_records, write_records

CONFIG = DataConfig(max_seq_length=32, max_predictions_per_seq=6)
NUM_RECORDS, BATCH = 37, 8


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Export 37 rows and import them again."""
    path = tmp_path_factory.mktemp("records")
    corpus = make_corpus(path / "corpus", random_lengths(80, seed=0))
    dataset = PretrainingDataset(corpus, CONFIG, seed=1, global_batch_size=NUM_RECORDS)
    rows = next(dataset.batches(start_step=0))
    vocabulary = load_vocabulary(corpus, WordStartRule.SPACE)
    write_records([rows], [path / "a.tfrecord"], vocabulary=vocabulary)
    import_records([path / "a.tfrecord"], path / "imported")
    return rows, path / "imported"


def open_records(exported, *, seed: int = 5, config: DataConfig = CONFIG) -> RecordDataset:
    return RecordDataset(exported[1], config, seed=seed, global_batch_size=BATCH)


def take(dataset: TrainingDataset, steps: int, *, start: int = 0, rows=None) -> list[dict]:
    return list(itertools.islice(dataset.batches(start_step=start, rows=rows), steps))


def test_batches_are_the_exported_rows_in_the_order_of_each_epoch(exported):
    rows, _ = exported
    dataset = open_records(exported)
    assert (dataset.rows_per_epoch, dataset.max_pairs_per_row) == (NUM_RECORDS, 1)
    assert dataset.global_batch_size == BATCH
    assert dataset.fill == (rows["sequence_ids"] > 0).mean()
    assert dataset.max_token_id == max(rows["input_ids"].max(), rows["masked_lm_ids"].max())
    orders = [
        randomness.permute(
            np.arange(NUM_RECORDS), NUM_RECORDS, key=randomness.derive_key(5, "order", epoch)
        )
        for epoch in range(3)
    ]
    records = np.concatenate(orders)
    for step, batch in enumerate(take(dataset, 3 * NUM_RECORDS // BATCH)):
        expected = records[step * BATCH : (step + 1) * BATCH]
        assert batch.keys() == rows.keys()
        # The format has no weights for the sentence order.
        assert (batch["sentence_order_weights"] == 1).all()
        for name in batch.keys() - {"sentence_order_weights"}:
            assert batch[name].dtype == rows[name].dtype
            np.testing.assert_array_equal(batch[name], rows[name][expected], err_msg=name)


def test_a_batch_depends_only_on_seed_and_step(exported):
    whole = take(open_records(exported), 12)
    for rows in (None, np.arange(4), np.arange(4, 8), np.array([6, 1])):
        later = take(open_records(exported), 3, start=9, rows=rows)
        for ours, theirs in zip(later, whole[9:], strict=True):
            for name in ours:
                wanted = slice(None) if rows is None else rows
                np.testing.assert_array_equal(ours[name], theirs[name][wanted])
    (other,) = take(open_records(exported, seed=6), 1)
    assert (other["masked_lm_ids"] != whole[0]["masked_lm_ids"]).any()
    with pytest.raises(ValueError, match="from 0 to 7"):
        open_records(exported).batches(start_step=0, rows=np.array([8]))


def test_without_sentence_objective_weights_are_0(exported):
    config = DataConfig(max_seq_length=32, max_predictions_per_seq=6, sentence_objective="none")
    (batch,) = take(open_records(exported, config=config), 1)
    assert not batch["sentence_order_weights"].any()


@pytest.mark.parametrize(
    ("settings", "field", "message"),
    [
        ({"max_seq_length": 64}, "data.max_seq_length", "must be 32, as in the records .*, got 64"),
        ({"max_predictions_per_seq": 5}, "data.max_predictions_per_seq", "must be 6, as in"),
    ],
)
def test_settings_must_be_those_of_the_records(exported, settings, field, message):
    config = DataConfig(**{"max_seq_length": 32, "max_predictions_per_seq": 6} | settings)
    with pytest.raises(FieldError, match=message) as caught:
        open_records(exported, config=config)
    assert caught.value.field == field
    with pytest.raises(FieldError, match="global_batch_size must be at least 1, got 0"):
        RecordDataset(exported[1], CONFIG, seed=0, global_batch_size=0)


def test_missing_and_damaged_records_are_errors(exported, tmp_path):
    files = {path.name: path.read_bytes() for path in exported[1].iterdir()}
    metadata = json.loads(files["metadata.json"])
    assert open_records(exported).fingerprint == metadata["fingerprint"]
    assert metadata["rows"] == NUM_RECORDS
    assert (metadata["max_seq_length"], metadata["max_predictions_per_seq"]) == (32, 6)

    def assert_rejected(message: str, **changed: bytes | None) -> None:
        edits = {name.replace("_json", ".json"): content for name, content in changed.items()}
        for name, content in (files | edits).items():
            path = tmp_path / name
            path.unlink(missing_ok=True)
            if content is not None:
                path.write_bytes(content)
        with pytest.raises(InputError, match=message) as caught:
            RecordDataset(tmp_path, CONFIG, seed=0, global_batch_size=BATCH)
        assert "\n" not in str(caught.value)

    def edited(**fields) -> bytes:
        return json.dumps(metadata | fields).encode()

    with pytest.raises(InputError, match="holds no imported records"):
        RecordDataset(tmp_path / "nowhere", CONFIG, seed=0, global_batch_size=BATCH)
    assert_rejected("metadata.json: this is not JSON", metadata_json=b'{"format"')
    assert_rejected("metadata.json must be a JSON object", metadata_json=b"[]")
    assert_rejected("has record format 9, and this program reads 1", metadata_json=edited(format=9))
    assert_rejected(
        "metadata.json: rows must be a whole number, got None", metadata_json=edited(rows=None)
    )
    assert_rejected("metadata.json: files must be an object", metadata_json=edited(files=[]))
    assert_rejected("first_lengths.bin is missing", metadata_json=edited(files={}))
    assert_rejected("metadata.json has changed", metadata_json=edited(fingerprint="0"))
    for name in files.keys() - {"metadata.json"}:
        flipped = bytes([files[name][0] ^ 1]) + files[name][1:]
        for content, message in (
            (None, "is missing or has another size"),
            (files[name][:-1], "is missing or has another size"),
            (flipped, "has changed"),
        ):
            assert_rejected(f"are damaged: {name} {message}", **{name: content})
