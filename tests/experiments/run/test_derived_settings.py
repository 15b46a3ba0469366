"""Settings that follow from those that the command line names, and from the corpus."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from absl import flags
from echoes import make_experiment, write_echoes

from data_pipeline.errors import InputError
from experiments.cli.config_dicts import differences, to_json
from experiments.cli.config_flag import GivenConfig, define_config_flag, parse_flags
from experiments.run.config import ExperimentConfig
from experiments.run.workdir import CONFIG_FILE, read_run_flags, with_corpus_vocabulary
from experiments.tasks.config import FinetuneConfig

# ml_collections loads a config file in a way that Python wants to drop.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


def read(
    config: str, *overrides: str, workdir: str | Path = "absent", kind: Any = ExperimentConfig
) -> GivenConfig[Any]:
    argv = ["command", f"--config={config}", *(f"--config.{one}" for one in overrides)]
    values = flags.FlagValues()
    flag = define_config_flag(values, argv)
    parse_flags(argv, values, config_kind=kind)
    return read_run_flags(flag, kind, workdir)


@pytest.mark.parametrize(
    ("config", "overrides", "followed", "line"),
    [
        (
            "albert_base",
            ["optimizer.num_train_steps=1000"],
            {"optimizer.num_warmup_steps": 25},
            "warm-up of 3,125 steps for 125,000 becomes 25 for 1,000; "
            "--config.optimizer.num_warmup_steps sets another",
        ),
        ("albert_base", ["optimizer.num_train_steps=125000"], {}, None),
        (
            "albert_base",
            ["optimizer.num_train_steps=100", "optimizer.num_warmup_steps=7"],
            {},
            None,
        ),
        (
            "albert_base",
            ["run.evaluate_every=100"],
            {"run.checkpoint_every": 100},
            "a checkpoint every 5,000 steps with an evaluation every 5,000 becomes one every 100 "
            "with one every 100; --config.run.checkpoint_every sets another",
        ),
        (
            "albert_tiny_cpu",
            ["optimizer.name=schedule_free"],
            {"optimizer.schedule": "warmup_stable_decay", "optimizer.decay_share": 0.0},
            "the schedule poly becomes warmup_stable_decay for schedule_free, whose rate is "
            "constant; --config.optimizer.schedule sets another",
        ),
        (
            "albert_small_wiki",
            ["data.max_seq_length=1024"],
            {"model.max_position_embeddings": 1024},
            "a position table of 512 becomes one of 1,024 for rows as long; "
            "--config.model.max_position_embeddings sets another",
        ),
        (
            "albert_small_wiki",
            ["phases.first.num_steps=4", "phases.first.max_seq_length=1024"],
            {"model.max_position_embeddings": 1024},
            "a position table of 512 becomes",
        ),
        ("albert_small_wiki", ["phases.first.max_seq_length=1024"], {}, None),  # has no steps
        (
            "albert_base_packed",
            ["model.max_position_embeddings=128"],
            {"data.max_seq_length": 128, "data.max_predictions_per_seq": 20},
            "rows of 512 become rows of 128, the longest that the model can read; "
            "--config.data.max_seq_length sets another",
        ),
        (
            "albert_base",
            ["model.max_position_embeddings=128", "model.position_encoding=rotary"],
            {},
            None,
        ),
    ],
)
def test_settings_follow_those_that_are_named_alone(
    config: str, overrides: list[str], followed: dict[str, Any], line: str | None
) -> None:
    given = read(config, *overrides)
    changed = {
        name: new for name, (_, new) in differences(read(config).config, given.config).items()
    }
    named = {one.partition("=")[0] for one in overrides}
    assert {name: value for name, value in changed.items() if name not in named} == followed
    assert len(given.lines) == len(followed)
    assert line is None or given.lines[0].startswith(line)


def test_fine_tuning_follows_too() -> None:
    given = read(
        "finetune/sst2",
        *("optimizer.num_train_steps=100", "run.evaluate_every=50"),
        kind=FinetuneConfig,
    )
    assert given.config.optimizer.num_warmup_steps == 6
    assert given.config.run.checkpoint_every == 50


def test_a_resumed_run_keeps_what_it_has(tmp_path: Path) -> None:
    """It may have been started when nothing followed."""
    named = ["optimizer.num_train_steps=4000", "run.evaluate_every=100"]
    before = read("albert_base", *named, "optimizer.num_warmup_steps=3125").config
    stored = dataclasses.replace(before, run=dataclasses.replace(before.run, checkpoint_every=5000))
    (tmp_path / CONFIG_FILE).write_text(to_json(stored))
    given = read("albert_base", *named, workdir=tmp_path)
    assert (given.config, given.lines) == (stored, ())
    longer = read("albert_base", "optimizer.num_train_steps=8000", *named[1:], workdir=tmp_path)
    assert longer.config.optimizer.num_warmup_steps == 3125


def test_the_vocabulary_is_that_of_the_corpus_unless_it_is_set(tmp_path: Path) -> None:
    corpus = write_echoes(tmp_path / "corpus")
    place = f"data.corpus_dir={corpus}"

    def size(*overrides: str, **options: Any) -> int:
        given = with_corpus_vocabulary(read("albert_base", *overrides), **options)
        return given.config.model.vocab_size

    assert size(place) == size(place, "model.vocab_size=21") == 21
    (line,) = with_corpus_vocabulary(read("albert_base", place)).lines
    assert line == "the model has the corpus's vocabulary of 21 tokens"
    for other in (30000, 8):  # the first is the default, and refused if it is named
        with pytest.raises(InputError) as raised:
            size(place, f"model.vocab_size={other}")
        assert str(raised.value) == (
            f"--config.data.corpus_dir={corpus} has a vocabulary of 21 tokens, "
            f"--config.model.vocab_size is {other:,}: leave it out, and the model has the corpus's"
        )
    absent = f"data.corpus_dir={tmp_path}/absent"
    with pytest.raises(InputError, match="absent is not a corpus"):
        size(absent)
    assert size(absent, path=tmp_path) == 30000  # a sweep that is planned elsewhere
    (tmp_path / CONFIG_FILE).write_text(to_json(make_experiment(corpus, num_train_steps=10)))
    assert size(absent, path=tmp_path) == 21
