"""Record commands: batches exported to the released format and imported again."""

import dataclasses

import numpy as np
import pytest
from tiny_corpora import make_corpus, random_lengths

from albert_jax import AlbertConfig
from albert_jax.settings import FieldError
from data_pipeline.config import DataConfig, Packing
from data_pipeline.corpus.reader import open_corpus
from data_pipeline.errors import InputError
from data_pipeline.pretraining.dataset import PretrainingDataset
from data_pipeline.pretraining.records import RecordDataset
from data_pipeline.pretraining.tfrecord import import_records
from experiments.export_records import export_records
from experiments.import_records import find_files
from experiments.run.config import ExperimentConfig


@pytest.fixture
def config(tmp_path):
    corpus = make_corpus(tmp_path / "corpus", random_lengths(40, seed=3))
    return ExperimentConfig(
        model=AlbertConfig(vocab_size=corpus.metadata.vocab_size),
        data=DataConfig(corpus_dir=str(corpus.path), max_seq_length=48, max_predictions_per_seq=7),
    )


def test_an_epoch_comes_back_row_by_row(tmp_path, config):
    paths = [tmp_path / "a.tfrecord", tmp_path / "b.tfrecord"]
    corpus = open_corpus(config.data.corpus_dir)
    dataset = PretrainingDataset(corpus, config.data, seed=config.seed, global_batch_size=8)
    count = export_records(config, paths, 2)
    assert count == 2 * dataset.rows_per_epoch
    assert import_records(find_files([str(tmp_path / "*.tfrecord")]), tmp_path / "records") == count

    def rows(batches, wanted):
        found = {}
        while len(found) < wanted:
            batch = next(batches)
            for row in range(len(batch["input_ids"])):
                # The format has no weights for the sentence order.
                names = sorted(set(batch) - {"sentence_order_weights"})
                key = b"".join(batch[name][row].tobytes() for name in names)
                found[key] = found.get(key, 0) + 1
        return found

    records = RecordDataset(tmp_path / "records", config.data, seed=0, global_batch_size=count)
    written = rows(dataset.batches(start_step=0), count)
    read = rows(records.batches(start_step=0), count)
    assert set(read) <= set(written)
    assert len(read) == count


def test_bad_requests(tmp_path, config):
    packed = dataclasses.replace(
        config, data=dataclasses.replace(config.data, packing=Packing.PACKED)
    )
    with pytest.raises(FieldError, match=r"data\.packing must be unpacked"):
        export_records(packed, [tmp_path / "a.tfrecord"], 1)
    with pytest.raises(InputError, match=r"--input_file=.* matches no file"):
        find_files([str(tmp_path / "none*")])
    assert not np.any([path.suffix == ".tfrecord" for path in tmp_path.iterdir()])
