"""Plans that are made with a corpus, or ahead of runs for one that is there."""

import pytest
from tiny_corpora import make_corpus, random_lengths

from data_pipeline.build_corpus import main
from data_pipeline.config import DataConfig
from data_pipeline.corpus.reader import open_corpus
from data_pipeline.planning.plan import open_plan

PLAN = "--plan=max_seq_length=64,packing=packed"


def test_machines_plan_a_corpus_and_runs_find_the_plan(tmp_path, capsys, monkeypatch):
    path = tmp_path / "corpus"
    make_corpus(path, random_lengths(60, seed=0), max_shard_bytes=6_000)
    command = ["build_corpus", f"--output_dir={path}", "--plan_only", PLAN, "--num_processes=1"]
    assert main([*command, "--plan=max_seq_length=32", "--plan_shards=1/2"]) == 0
    assert capsys.readouterr().err.count("shards are missing") == 2
    assert main([*command, "--plan_shards=0/2"]) == 0
    assert capsys.readouterr().err.endswith(": complete\n")
    monkeypatch.delattr("data_pipeline.planning.plan._build")
    config = DataConfig(max_seq_length=64, packing="packed", masked_lm_prob=0.2)
    assert open_plan(open_corpus(path), "train", config).num_rows > 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--plan=length=5"], "--plan=length=5: 'length' is none of the settings max_seq_length,"),
        (["--plan=packing=full"], "--plan=packing=full: packing must be one of unpacked, packed,"),
        (["--plan=max_seq_length=x"], "max_seq_length must be a whole number in [8, 65536], got"),
        (["--plan_shards=2/2"], "--plan_shards must be PART/PARTS with a part from 0, as in 0/8"),
        (["--plan_only"], "--plan_only needs --plan, the settings of rows"),
    ],
)
def test_bad_plans_are_one_line(tmp_path, capsys, flags, message):
    assert main(["build_corpus", f"--output_dir={tmp_path}", *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
