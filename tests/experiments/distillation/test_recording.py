"""Recordings: read by the run that they were made for, resumed, extended, and refused otherwise."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from echoes import make_experiment, with_part, write_echoes

from albert_jax.batch import PretrainingBatch, TeacherPredictions
from albert_jax.devices.mesh import make_mesh
from data_pipeline.corpus.reader import open_corpus
from data_pipeline.errors import InputError
from experiments.distillation import RecordedTeacher, record
from experiments.distillation import recording as layout
from experiments.distillation.recorded_teacher import is_recording
from experiments.run.config import ExperimentConfig, PhaseConfig
from experiments.run.curriculum import Curriculum

STEPS, TOP = 14, 3


class EchoTeacher:
    """A teacher that finds the true tokens most probable, and counts the batches it gets."""

    path, fingerprint = "echo", "0" * 64

    def __init__(self, stop_after: int = 1000) -> None:
        self.asked = 0
        self._stop_after = stop_after

    def predict(self, batch: PretrainingBatch) -> TeacherPredictions:
        if self.asked == self._stop_after:
            raise KeyboardInterrupt
        self.asked += 1
        token_ids = (np.asarray(batch.masked_lm_ids)[..., None] + np.arange(TOP)) % 21
        log_probs = np.log(np.broadcast_to([0.5, 0.25, 0.125], token_ids.shape))
        return TeacherPredictions(token_ids.astype(np.int32), log_probs.astype(np.float32))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_echoes(tmp_path_factory.mktemp("echoes") / "corpus")


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of four steps of a row of 5 slots, and of fewer in phases of more slots."""
    monkeypatch.setattr(layout, "SHARD_BYTES", 4 * 16 * (4 + 5 * TOP * 4) + 1)


def make_config(
    corpus: Path, teacher: Path | str = "", *, steps: int = STEPS, **parts: Any
) -> ExperimentConfig:
    config = make_experiment(corpus, num_train_steps=steps)
    config = with_part(config, "distillation", teacher=str(teacher), top_k=TOP)
    for part, changes in parts.items():
        config = with_part(config, part, **changes)
    return config


@functools.cache
def open_batches(corpus: Path, config: ExperimentConfig) -> Curriculum:
    return Curriculum(open_corpus(corpus), config, make_mesh(devices=jax.devices()[:1]))


def batches_of(corpus: Path, config: ExperimentConfig) -> Curriculum:
    """The batches of an experiment, without a teacher; TensorFlow traces them once."""
    batches = open_batches(corpus, with_part(config, "distillation", teacher="", top_k=1))
    batches.teach(None)
    return batches


def taught(
    corpus: Path, config: ExperimentConfig, start: int, count: int
) -> list[PretrainingBatch]:
    batches = batches_of(corpus, config)
    batches.teach(RecordedTeacher(config, batches.identity))
    stream = batches.batches(start)
    found = [next(stream) for _ in range(count)]
    stream.close()
    return found


def test_a_run_reads_what_was_recorded_for_its_batches(corpus: Path, tmp_path: Path) -> None:
    directory, teacher = tmp_path / "recording", EchoTeacher(stop_after=6)
    first = PhaseConfig(5, max_seq_length=24, max_predictions_per_seq=5, global_batch_size=8)
    config = make_config(corpus, directory, phases={"first": first})
    with pytest.raises(KeyboardInterrupt):
        record(config, batches_of(corpus, config), teacher, directory)
    assert is_recording(str(directory)) and not is_recording(str(tmp_path))
    with pytest.raises(InputError, match=r"has 5 of the run's 14 steps: experiments\.distillation"):
        taught(corpus, config, 0, 1)
    again = EchoTeacher()
    record(config, batches_of(corpus, config), again, directory)
    assert again.asked == STEPS - 5  # a phase of one file was complete
    assert sorted(path.name for path in directory.glob("*.bin")) == [
        f"00000{n}.bin" for n in range(4)
    ]

    expected = EchoTeacher()
    for batch in taught(corpus, config, 0, STEPS):
        assert batch.teacher is not None
        predictions = expected.predict(batch)
        np.testing.assert_array_equal(batch.teacher.token_ids, predictions.token_ids)
        np.testing.assert_allclose(batch.teacher.log_probs, predictions.log_probs, rtol=1e-3)
        assert batch.teacher.log_probs.dtype == np.float32
    ahead = taught(corpus, config, STEPS - 1, 3)  # prefetched, and never trained on
    assert ahead[2].teacher is not None and ahead[2].teacher.token_ids.shape == (16, 5, TOP)


def test_a_recording_becomes_longer(corpus: Path, tmp_path: Path) -> None:
    directory = tmp_path / "recording"
    short, long = (make_config(corpus, directory, steps=steps) for steps in (STEPS, STEPS + 4))
    record(short, batches_of(corpus, short), EchoTeacher(), directory)
    teacher = EchoTeacher()
    record(long, batches_of(corpus, long), teacher, directory)
    assert teacher.asked == 6  # the file that ended early, and another one
    ends = [taught(corpus, one, STEPS - 1, 1)[0].teacher for one in (short, long)]
    jax.tree.map(np.testing.assert_array_equal, *ends)


def test_a_recording_of_another_run_is_refused(corpus: Path, tmp_path: Path) -> None:
    directory = tmp_path / "recording"
    config = make_config(corpus, directory)
    record(config, batches_of(corpus, config), EchoTeacher(), directory)
    for parts, match in (
        ({"data": {"masked_lm_prob": 0.3}}, r"data\.masked_lm_prob was 0\.15 and is 0\.3"),
        ({"distillation": {"top_k": 4}}, r"distillation\.top_k was 3 and is 4"),
        ({"distillation": {"temperature": 2.0}}, r"distillation\.temperature was 1\.0 and is 2\.0"),
    ):
        other = make_config(corpus, directory, **parts)
        with pytest.raises(InputError, match=f"teacher=.*the recording of another run: {match}"):
            taught(corpus, other, 0, 1)
        with pytest.raises(InputError, match=f"output_dir=.* holds another recording: {match}"):
            record(other, batches_of(corpus, other), EchoTeacher(), directory)
    moved = write_echoes(tmp_path / "other", documents=500)
    with pytest.raises(InputError, match=r"the corpus was \w{12} and is \w{12}"):
        taught(moved, make_config(moved, directory), 0, 1)
    stranger = EchoTeacher()
    stranger.fingerprint = "1" * 64
    with pytest.raises(InputError, match="the teacher was echo, and echo is another one"):
        record(config, batches_of(corpus, config), stranger, directory)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="is not empty and holds no recording"):
        record(config, batches_of(corpus, config), EchoTeacher(), tmp_path / "mine")


def test_a_damaged_recording_is_refused(corpus: Path, tmp_path: Path) -> None:
    directory = tmp_path / "recording"
    config = make_config(corpus, directory)
    record(config, batches_of(corpus, config), EchoTeacher(), directory)
    path = directory / "000002.bin"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match=r"000002\.bin is damaged or missing: delete it, and rec"):
        taught(corpus, config, 9, 1)
    path.unlink()
    again = EchoTeacher()
    record(config, batches_of(corpus, config), again, directory)
    assert again.asked == 4
    assert path.read_bytes() == content

    rows = np.fromfile(path, layout.shards_of(config)[2].row)
    rows["checksum"][16 + 3] ^= 1  # as of another version, which makes other batches
    rows.tofile(path)
    listed = json.loads((directory / "shards.json").read_text())
    listed[path.name]["sha256"] = layout.hash_file(path)
    (directory / "shards.json").write_text(json.dumps(listed))
    with pytest.raises(InputError, match="row 3 of step 9 is not the one that the teacher read"):
        taught(corpus, config, 9, 1)


def test_a_full_disk_is_found_before_anything_is_recorded(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, teacher = make_config(corpus), EchoTeacher()
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("experiments.distillation.recorder.shutil.disk_usage", lambda _: usage)
    with pytest.raises(InputError, match=r"needs 14\.3 kB, its disk has 0\.0 kB: lower"):
        record(config, batches_of(corpus, config), teacher, tmp_path / "recording")
    assert teacher.asked == 0
