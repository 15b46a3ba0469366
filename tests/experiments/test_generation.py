"""Writing, end to end: a translation is learned, resumed, continued and used from its workdir."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny_tasks
from commands import assert_same_params, stopped_after
from short_runs import use_one_device

from albert_jax.decoder.config import DecoderSizes
from albert_jax.devices.mesh import make_mesh
from albert_jax.generation.config import GenerationOptions
from albert_jax.pretrained import read_pretrained
from data_pipeline.errors import InputError
from data_pipeline.generation.config import TargetsConfig
from experiments.cli.exit_codes import ExitCode
from experiments.finetune import finetune
from experiments.finetuning.open_run import open_finetuning
from experiments.metrics.metrics_file import read_metrics
from experiments.predict import TASKS
from experiments.run import execution
from experiments.run import training as training_run
from experiments.tasks.config import FinetuneConfig
from experiments.tasks.raw_inputs import PredictionOptions, RawInput
from experiments.tasks.task_settings import TaskName

# In the other language every word is one letter.
WORDS = dict(zip((*tiny_tasks.FILLERS, "good", "bad"), "abcdefghijxy", strict=True))


@pytest.fixture(scope="module", autouse=True)
def one_device() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        use_one_device(patch)
        patch.setattr("experiments.finetuning.report._plot", lambda *_, **__: None)
        patch.setattr(training_run, "draw_run", lambda *_, **__: None)
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Sources and targets, a line each; the test's are not translated yet."""
    directory = tmp_path_factory.mktemp("pairs")
    for number, (split, count) in enumerate((("train", 320), ("dev", 40), ("test", 5))):
        found = [words[:4] for words, _ in tiny_tasks.sentences(count, ["good", "bad"], number)]
        sources = "".join(" ".join(words) + "\n" for words in found)
        targets = "".join(" ".join(WORDS[word] for word in words) + "\n" for words in found)
        (directory / f"{split}.en").write_text(sources)
        (directory / f"{split}.fr").write_text(targets)
    splits = ("train", "dev")
    return {
        "data": {f"{split}_file": str(directory / f"{split}.en") for split in (*splits, "test")},
        "targets": {f"{split}_file": str(directory / f"{split}.fr") for split in splits},
    }


@pytest.fixture(scope="module")
def make_config(files: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    tokenizer = tiny_tasks.write_tokenizer(tmp_path_factory.mktemp("tokenizer"))

    def make(*, data: Any = None, targets: Any = None, decoder: Any = None, **run: Any) -> Any:
        config = tiny_tasks.make_finetuning(
            TaskName.TRANSLATION, tokenizer, data={**files["data"], **(data or {})}, **run
        )
        settings = {"vocab_size": 280, "max_length": 16, "label_smoothing": 0.0}
        return dataclasses.replace(
            config,
            targets=TargetsConfig(**settings | files["targets"] | (targets or {})),
            decoder=DecoderSizes(dropout=0.0, **(decoder or {})),
            decoding=GenerationOptions(num_beams=2, max_new_tokens=16),
        )

    return make


LONG = {"steps": 400, "evaluate_every": 200, "checkpoint_every": 100}


@pytest.fixture(scope="module")
def finished(make_config: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("runs") / "finished"
    assert finetune(make_config(**LONG), workdir) is ExitCode.DONE
    return workdir


def read_report(workdir: Path) -> dict[str, Any]:
    return json.loads((workdir / "report.json").read_text())


def translate(model: Path, *texts: str, **options: Any) -> list[dict[str, Any]]:
    given = [RawInput({"text": text}, f"example {n}") for n, text in enumerate(texts)]
    found = dict(TASKS["translate"].predict(given, PredictionOptions(str(model), **options)))
    return [found[number] for number in range(len(texts))]


def test_a_language_is_learned_and_reported(finished: Path, files: Any) -> None:
    report = read_report(finished)
    assert report["metric"] == "bleu" and report["value"] > 80
    dev = report["splits"]["dev"]
    assert dev["figures"]["bleu_lowercase"] >= dev["figures"]["bleu"]
    assert any("13a" in note and "case:mixed" in note for note in dev["notes"])
    first, *_ = Path(files["data"]["dev_file"]).read_text().splitlines()
    assert dev["samples"][0]["source"] == first
    text = (finished / "report.md").read_text()
    assert "Examples of dev" in text and dev["samples"][0]["reference"] in text
    assert len((finished / "test_predictions.txt").read_text().splitlines()) == 5
    evaluations = [e for e in read_metrics(finished) if e["split"] == "validation"]
    assert evaluations[0]["cross_entropy"] > evaluations[-1]["cross_entropy"]


def test_the_workdir_translates(finished: Path) -> None:
    ours, longer, *empty = translate(finished, "good word3", "bad word1 word2", "", " \t")
    assert (ours["generated"], longer["generated"]) == ("x d", "y b c")
    assert ours["score"] < 0 and empty[0]["generated"] == empty[1]["generated"]
    assert translate(finished, "good word3", generation={"num_beams": 1})[0]["generated"] == ("x d")


def test_a_drawn_text_does_not_depend_on_its_batch(finished: Path) -> None:
    drawn = {"temperature": 3.0, "seed": 4}
    texts = [f"good word{number % 10} bad" for number in range(9)]
    together = translate(finished, *texts, generation=drawn)
    alone = translate(finished, *texts[:1], generation=drawn)
    assert together[0]["generated"] == alone[0]["generated"]
    assert len({one["generated"] for one in together}) > 1


def test_options_that_do_not_go_together_are_refused(finished: Path) -> None:
    for options, message in (
        ({"num_beams": 200}, "--num_beams must be at most half of vocab_size"),
        ({"top_k": 3}, "--top_k must be 0 unless temperature"),
        ({"max_new_tokens": 99}, "--max_new_tokens must be at most n_positions"),
    ):
        with pytest.raises(InputError, match=message):
            translate(finished, "good", generation=options)


def test_an_interrupted_run_ends_as_one_that_was_not(
    make_config: Any, finished: Path, tmp_path: Path
) -> None:
    with stopped_after(211):
        assert finetune(make_config(**LONG), tmp_path) is ExitCode.PREEMPTED
    assert finetune(make_config(**LONG), tmp_path) is ExitCode.DONE
    assert_same_params(tmp_path, finished)
    assert read_report(tmp_path)["splits"] == read_report(finished)["splits"]


@pytest.mark.slow
def test_several_devices_take_the_steps_of_one(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In micro-batches too; and one run is scored by as many."""
    short = {"steps": 4, "evaluate_every": 4, "checkpoint_every": 4}
    assert finetune(make_config(**short), tmp_path / "one") is ExitCode.DONE
    with monkeypatch.context() as patch:
        patch.setattr(execution, "make_mesh", make_mesh)
        config = make_config(**short, accumulation_steps=2)
        # Dropout draws for rows, whose numbers are those in a micro-batch.
        assert finetune(config, tmp_path / "eight") is ExitCode.DONE
    one, eight = (read_report(tmp_path / name)["splits"]["dev"] for name in ("one", "eight"))
    assert one["figures"]["cross_entropy"] == pytest.approx(
        eight["figures"]["cross_entropy"], rel=1e-3
    )


def test_a_run_goes_on_from_encoder_and_decoder(
    make_config: Any, finished: Path, tmp_path: Path
) -> None:
    """With a rate that changes nothing the model is the one it started from."""
    config = make_config(
        steps=2,
        evaluate_every=2,
        checkpoint_every=2,
        init_from=str(finished),
        init_decoder_from=str(finished),
    )
    still = dataclasses.replace(config.optimizer, learning_rate=1e-12)
    assert finetune(dataclasses.replace(config, optimizer=still), tmp_path) is ExitCode.DONE
    before, after = (read_pretrained(path).params for path in (finished, tmp_path))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), before, after)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targets": {"train_file": None}}, "targets.train_file is missing"),
        ({"targets": {"max_length": 3}}, "raise --config.targets.max_length, or cut"),
        ({"targets": {"vocab_size": 5000}}, "config.targets.vocab_size=5000"),
        ({"decoder": {"rate_factor": 2.0}}, "decoder.rate_factor must be 1"),
        ({"decoder": {"n_head": 5}}, "config.decoder.n_embd must be a multiple of n_head"),
        ({"decoder": {"tie_to_encoder": True, "n_embd": 64, "n_head": 2}}, "tie_to_encoder"),
        ({"init_decoder_from": "nowhere"}, "needs --config.run.init_from"),
    ],
)
def test_what_does_not_fit_is_one_line(
    make_config: Any, tmp_path: Path, settings: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message) as raised:
        open_finetuning(make_config(**settings), tmp_path / "run")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_files_that_are_not_aligned_are_refused(
    make_config: Any, files: Any, tmp_path: Path
) -> None:
    short = tmp_path / "short.fr"
    short.write_text("x\n")
    with pytest.raises(InputError, match=r"short\.fr"):
        open_finetuning(make_config(targets={"train_file": str(short)}), tmp_path / "run")


def test_a_table_has_its_targets_in_a_column(make_config: Any, tmp_path: Path) -> None:
    rows = [{"text": f"good word{n}", "target": f"x {'abcdefghij'[n]}"} for n in range(10)]
    table = tmp_path / "pairs.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    bare = tmp_path / "bare.tsv"
    bare.write_text("text\nword1 good\nbad\n")
    names = {"train_file": str(table), "dev_file": str(table), "test_file": str(bare)}
    none = {"train_file": None, "dev_file": None, "vocab_size": 272}
    config: FinetuneConfig = make_config(data=names, targets=none)
    task = open_finetuning(config, tmp_path / "run").task
    assert len(task.train.lengths) == 10
    assert list(task.labeled) == ["dev"] and len(task.unlabeled["test"].lengths) == 2
    with pytest.raises(InputError, match="is for files of lines"):
        open_finetuning(
            make_config(data=names, targets=none | {"train_file": str(table)}), tmp_path / "run"
        )
