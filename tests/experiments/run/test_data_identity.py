"""A workdir is resumed with the data that it was trained on, or not at all."""

import dataclasses
import json
from pathlib import Path

import pytest
from echoes import make_experiment, write_echoes
from etils import epath

from albert_jax.devices.mesh import make_mesh
from data_pipeline.corpus.metadata import (
    CorpusMetadata,
    SourceMetadata,
    fingerprint_content,
)
from data_pipeline.corpus.reader import open_corpus
from data_pipeline.errors import InputError
from experiments.run.curriculum import Curriculum
from experiments.run.resumption import DataIdentity, check_data
from experiments.run.workdir import open_pretraining_workdir


def weigh(metadata: CorpusMetadata, *weights: float) -> CorpusMetadata:
    """Give a corpus sources of these weights, of which the first has all of the text."""
    (only,) = metadata.sources
    none = {split: dict.fromkeys(counts, 0) for split, counts in only.counts.items()}
    sources = tuple(
        SourceMetadata(name, weight, none if number else only.counts)
        for number, (name, weight) in enumerate(zip("abc", weights, strict=False))
    )
    by_name = {source.name: source.weight for source in sources}
    return dataclasses.replace(
        metadata, sources=sources, fingerprint=fingerprint_content(metadata.files, by_name)
    )


def identify(corpus: Path) -> DataIdentity:
    config = make_experiment(corpus, num_train_steps=60)
    return Curriculum(open_corpus(corpus), config, make_mesh()).identity


def test_a_resume_names_weights_that_changed(tmp_path: Path) -> None:
    path, workdir = write_echoes(tmp_path / "corpus", documents=60), tmp_path / "run"
    metadata = open_corpus(path).metadata
    weigh(metadata, 1.0, 2.0).save(path)
    config, trained = make_experiment(path, num_train_steps=60), identify(path)
    with open_pretraining_workdir(workdir, config, open_corpus(path), trained):
        check_data(workdir, trained)
    weigh(metadata, 1.0, 9.0).save(path)
    with pytest.raises(
        InputError,
        match=r"another corpus .* weights of its sources were \{'a': 1\.0, 'b': 2\.0\} and are "
        r"\{'a': 1\.0, 'b': 9\.0\}",
    ):
        check_data(workdir, identify(path))


def test_the_corpus_of_a_decay_may_change_until_it_begins(tmp_path: Path) -> None:
    path = write_echoes(tmp_path / "corpus", documents=60)
    decays = [write_echoes(tmp_path / f"d{seed}", documents=30, seed=seed) for seed in (1, 2)]
    plain, first, second = (
        identify(path)._replace(
            decay=decay and identify(decay)._replace(kind="decay_corpus", first_step=8)
        )
        for decay in (None, *decays)
    )
    config, corpus = make_experiment(path, num_train_steps=60), open_corpus(path)
    for number, (started, resumed, message) in enumerate(
        (
            (plain, first, "from step 9 on with data.corpus_dir, not with .*/d1 "),
            (first, plain, r"from step 9 on with .*/d1 \(.*\), not with data.corpus_dir as"),
            (first, second, r"up to step 9, from step 9 on with .*/d1 \(.*\), not with .*/d2 "),
        )
    ):
        workdir = epath.Path(tmp_path / f"run{number}")
        with open_pretraining_workdir(workdir, config, corpus, started):
            (workdir / "checkpoints/8").mkdir(parents=True)
            check_data(workdir, resumed)
            (workdir / "checkpoints/9").mkdir()
            check_data(workdir, started)
            with pytest.raises(InputError, match=message):
                check_data(workdir, resumed)
        (workdir / "checkpoints/9").rmdir()
        with open_pretraining_workdir(workdir, config, corpus, resumed):
            (workdir / "checkpoints/9").mkdir()
            check_data(workdir, resumed)


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 2.0)])
def test_a_workdir_of_before_is_resumed_on_its_corpus(
    tmp_path: Path, weights: tuple[float, ...]
) -> None:
    """Earlier workdirs and corpora know only the fingerprint of the files."""
    path, workdir = write_echoes(tmp_path / "corpus", documents=60), tmp_path / "run"
    weigh(open_corpus(path).metadata, *weights).save(path)
    fields = json.loads((path / "metadata.json").read_text())
    before = open_corpus(path)._replace(
        metadata=dataclasses.replace(open_corpus(path).metadata, format_version=1)
    )
    old = before.metadata.unsealed_fingerprint
    assert old is not None
    del fields["seals"]
    (path / "metadata.json").write_text(
        json.dumps(fields | {"format_version": 1, "fingerprint": old})
    )
    workdir.mkdir()
    (workdir / "corpus.json").write_text(json.dumps({"path": str(path), "fingerprint": old}))
    check_data(workdir, identify(path))
    assert (identify(path).fingerprint == old) == (len(weights) == 1)
    (workdir / "corpus.json").write_text(json.dumps({"path": "", "fingerprint": old[::-1]}))
    with pytest.raises(InputError, match="another corpus"):
        check_data(workdir, identify(path))
