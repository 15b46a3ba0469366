"""An ALBERT as teacher: runs are resumed bit for bit, and refused where it does not fit."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import assert_same_params, stopped_after
from echoes import make_experiment, with_part, write_echoes
from short_runs import draw_nothing, use_one_device
from tiny_models import random_params

from albert_jax import AlbertForMaskedLM
from albert_jax.devices.mesh import make_mesh
from albert_jax.settings import FieldError
from albert_jax.tasks.config import ObjectiveConfig, TokenLoss
from data_pipeline.corpus.reader import open_corpus
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.tokenizer import TOKENIZER_DIRECTORY
from data_pipeline.tokenizers.wordpiece import WordPieceTokenizer
from experiments.cli.exit_codes import ExitCode
from experiments.distillation import open_teacher
from experiments.metrics.metrics_file import read_metrics
from experiments.pretrain import pretrain
from experiments.run.compiled_steps import refuse_teacher
from experiments.run.config import ExperimentConfig
from experiments.run.curriculum import Curriculum

STEPS = 12
TEACHER = {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 1}


@pytest.fixture(scope="module", autouse=True)
def one_device() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        use_one_device(patch)
        draw_nothing(patch)
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_echoes(tmp_path_factory.mktemp("echoes") / "corpus")


def export_teacher(path: Path, corpus: Path, *, seed: int = 0, **changes: Any) -> Path:
    """A teacher of random parameters, narrower than the student and of fewer layers."""
    sizes = dataclasses.replace(make_experiment(corpus, num_train_steps=STEPS).model, **TEACHER)
    model = AlbertForMaskedLM(dataclasses.replace(sizes, **changes))
    model.save_pretrained(path, random_params(model, seed))
    open_corpus(corpus).load_tokenizer().save(path / TOKENIZER_DIRECTORY)
    return path


@pytest.fixture(scope="module")
def teacher(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_teacher(tmp_path_factory.mktemp("teachers") / "teacher", corpus)


def make_config(corpus: Path, teacher: Path | str, **run: Any) -> ExperimentConfig:
    run = {"log_every": 1, "accumulation_steps": 2} | run
    config = make_experiment(corpus, num_train_steps=STEPS, **run)
    return with_part(config, "distillation", teacher=str(teacher), top_k=5, temperature=2.0)


def test_a_resumed_run_asks_the_same_teacher(
    corpus: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, workdir = make_config(corpus, teacher), tmp_path / "run"
    with stopped_after(5):
        assert pretrain(config, workdir) is ExitCode.PREEMPTED
    printed = capsys.readouterr().err
    assert f"teacher: {teacher}, 1 layers of 24, " in printed
    assert "top 5 tokens at temperature 2, weight 1; attention: " in printed
    assert "compiling the teacher ..." in printed
    entries = [e for e in read_metrics(workdir) if e["split"] == "train"]
    assert all(entry["distillation_loss"] > 0 for entry in entries)
    assert {"teacher_agreement", "teacher_accuracy"} <= entries[0].keys()
    parts = ("masked_lm_loss", "sentence_order_loss", "distillation_loss")
    assert entries[0]["loss"] == pytest.approx(sum(entries[0][name] for name in parts), rel=1e-6)

    other = export_teacher(tmp_path / "other", corpus, seed=1)
    with pytest.raises(InputError, match=r"was trained with the teacher .*, not with --config\."):
        pretrain(make_config(corpus, other), workdir)
    with pytest.raises(InputError, match=r"was trained with the teacher .*: name it again"):
        pretrain(make_config(corpus, ""), workdir)
    moved = shutil.copytree(teacher, tmp_path / "elsewhere")
    assert pretrain(make_config(corpus, moved), workdir, dry_run=True) is ExitCode.DONE
    assert f"teacher: {moved}, 1 layers of 24" in capsys.readouterr().out
    (workdir / "teacher.json").unlink()
    with pytest.raises(InputError, match="was trained without a teacher, not with"):
        pretrain(config, workdir)


@pytest.mark.slow
def test_a_resumed_run_ends_bit_for_bit_as_one_that_was_not_stopped(
    corpus: Path, teacher: Path, tmp_path: Path
) -> None:
    config = make_config(corpus, teacher)
    assert pretrain(config, tmp_path / "whole") is ExitCode.DONE
    with stopped_after(5):
        assert pretrain(config, tmp_path / "stopped") is ExitCode.PREEMPTED
    assert pretrain(config, tmp_path / "stopped") is ExitCode.DONE
    assert_same_params(tmp_path / "stopped", tmp_path / "whole")


def test_operations_count_the_forward_pass_of_the_teacher(corpus: Path, teacher: Path) -> None:
    config, opened, mesh = make_config(corpus, teacher), open_corpus(corpus), make_mesh()
    batches = Curriculum(opened, config, mesh)
    alone = batches.mean_flops
    found = open_teacher(config, opened, batches.identity, mesh, sequence_slots=0)
    batches.teach(found)
    assert found is not None and found.on_devices is not None
    # One layer of 24 and 64 inside, 32 positions, 5 slots, 21 tokens, by hand. As the last
    # layer it computes only the 5 predicted positions behind its attention.
    layer = 32 * 6 * 24**2 + 4 * 32**2 * 24 + 5 * (2 * 24**2 + 4 * 24 * 64)
    per_row = layer + 2 * 32 * 16 * 24 + 2 * 5 * 16 * (24 + 21)
    assert batches.mean_flops - alone == 16 * per_row
    assert batches.work_of_step(0).flops == batches.mean_flops

    found.sequence_slots = 1  # as of cudnn
    batches.teach(found)
    with pytest.raises(InputError, match=r"run\.sequence_slots must be at least \d"):
        next(batches.batches(0))


def test_a_teacher_that_does_not_fit_is_refused(corpus: Path, tmp_path: Path) -> None:
    opened = open_corpus(corpus)
    data = Curriculum(opened, make_config(corpus, ""), make_mesh()).identity

    def expect(match: str, teacher: Path | str) -> None:
        with pytest.raises(InputError, match=match):
            open_teacher(make_config(corpus, teacher), opened, data, make_mesh(), sequence_slots=0)

    expect("teacher=nowhere: there is no nowhere", "nowhere")
    short = export_teacher(tmp_path / "short", corpus, max_position_embeddings=16)
    expect(r"reads rows of 16 tokens at most, .* rows of 32: --config\.data\.max_seq", short)
    one = export_teacher(tmp_path / "one", corpus, type_vocab_size=1)
    expect("has 1 token type, and pairs have two", one)
    larger = write_echoes(tmp_path / "larger", words=9)
    expect("23 tokens there, 21 here", export_larger(tmp_path / "23", larger))
    renamed = export_teacher(tmp_path / "renamed", corpus)
    tokens = list(open_corpus(corpus).load_tokenizer().tokens)
    shutil.rmtree(renamed / TOKENIZER_DIRECTORY)
    WordPieceTokenizer([*tokens[:-1], "echo!"]).save(renamed / TOKENIZER_DIRECTORY)
    expect("1 of 21 ids differ, such as 20, 'echo!' there and 'echo7' here", renamed)
    bert = shutil.copytree(short, tmp_path / "bert")
    values = json.loads((bert / "config.json").read_text()) | {"model_type": "bert"}
    (bert / "config.json").write_text(json.dumps(values))
    expect("must be albert, got 'bert'; experiments.distillation records", bert)


def export_larger(path: Path, corpus: Path) -> Path:
    return export_teacher(path, corpus, vocab_size=open_corpus(corpus).metadata.vocab_size)


def test_a_step_alone_and_other_objectives_have_no_teacher(corpus: Path) -> None:
    config = make_config(corpus, "")
    refuse_teacher(config)
    with pytest.raises(InputError, match=r"teacher must be empty here: .* got 'x'"):
        refuse_teacher(make_config(corpus, "x"))
    detecting = dataclasses.replace(config, objective=ObjectiveConfig(TokenLoss.REPLACED_TOKENS))
    with pytest.raises(FieldError, match=r"teacher must be empty with objective\.token_loss="):
        with_part(detecting, "distillation", teacher="x")
    sampling = with_part(config, "optimizer", name="sophia")
    with pytest.raises(FieldError, match=r"optimizer\.name must be another with distillation"):
        with_part(sampling, "distillation", teacher="x")
    with pytest.raises(FieldError, match=r"distillation\.top_k must be at most .* \(21\), got 22"):
        with_part(make_config(corpus, "x"), "distillation", top_k=22)
