"""Configuration of pre-training data."""

import errno

from data_pipeline.config import DataConfig, SentenceObjective
from data_pipeline.errors import storage_failure


def test_sentence_objectives_name_their_metrics():
    assert {objective.value: objective.metric_name for objective in SentenceObjective} == {
        "sop": "sentence_order",
        "nsp": "next_sentence",
        "none": None,
    }


def test_legacy_restores_the_errors_of_the_released_generator():
    legacy = DataConfig(max_seq_length=128).legacy()
    assert legacy.max_seq_length == 128
    assert (legacy.single_sentence, legacy.mask_reach) == ("random_document", "pair")
    assert (legacy.random_replacement, legacy.word_start_rule) == ("any", "legacy")


def test_errors_of_disks_and_paths_are_no_bugs():
    storage = {errno.ENOSPC, errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG}
    assert all(storage_failure(OSError(code, "x")) for code in storage)
    assert storage_failure(OSError(errno.EBADF, "x")) is None
