"""GLUE in one command: tasks found, commands planned, results in one table."""

import base64
import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from html_pages import PROBE, Outline, show

from albert_jax.config import AlbertConfig
from data_pipeline.errors import InputError
from experiments.cli.config_dicts import to_json
from experiments.finetuning.glue.checks import check_runs, resolve
from experiments.finetuning.glue.jobs import GlueRun, Start, find_tasks, plan_runs
from experiments.finetuning.glue.report import write_glue_report
from experiments.finetuning.glue.results import difference, rank_sum_test, read_results


def make_folder(path: Path) -> Path:
    """A folder with two whole tasks, and one without its dev file."""
    for name, files in {
        "SST-2": ("train", "dev", "test"),
        "rte": ("train", "dev"),
        "CoLA": ("train",),
        "notes": (),
    }.items():
        (path / name).mkdir(parents=True)
        for file in files:
            (path / name / f"{file}.tsv").touch()
    return path


def test_tasks_are_found_by_their_official_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(tmp_path / "glue")
    assert find_tasks(folder) == {"sst-2": folder / "SST-2", "rte": folder / "rte"}
    assert capsys.readouterr().err == f"left out: {folder}/CoLA has no dev.tsv\n"
    assert list(find_tasks(folder, ["RTE"])) == ["rte"]
    with pytest.raises(InputError, match=r"--tasks: .*/CoLA has no dev.tsv"):
        find_tasks(folder, ["cola"])
    with pytest.raises(InputError, match=r"--tasks: .* has no MNLI with its train and dev files"):
        find_tasks(folder, ["mnli"])
    with pytest.raises(InputError, match=r"there is no task 'sst'; did you mean sst-2\?"):
        find_tasks(folder, ["sst"])
    with pytest.raises(InputError, match=r"has no directory of a task .* CoLA, SST-2, MRPC"):
        find_tasks(folder / "notes")
    with pytest.raises(InputError, match="is no directory"):
        find_tasks(folder / "nowhere")


def planned(
    tmp_path: Path,
    *starts: Start,
    init_from: str = "runs/base",
    seeds: int = 3,
    **overrides: str,
) -> list[GlueRun]:
    folder = tmp_path / "glue"
    return plan_runs(
        find_tasks(folder if folder.exists() else make_folder(folder)),
        tmp_path / "runs",
        init_from=init_from,
        starts=starts,
        seeds=seeds,
        overrides={"data.num_epochs": "1"}
        | {n.replace("__", "."): v for n, v in overrides.items()},
    )


def test_each_task_and_start_is_one_fine_tuning(tmp_path: Path) -> None:
    runs = planned(tmp_path, *Start)
    assert [(run.task, run.start) for run in runs] == [
        *(("sst-2", start) for start in Start),
        *(("rte", start) for start in Start),
    ]
    (command,) = runs[1].job.commands
    assert str(command) == (
        f"python -m experiments.finetune --config=finetune/sst2 --config.data.dir={tmp_path}/glue/"
        "SST-2 --config.run.init_from=runs/base --config.run.seeds=3 "
        f"--config.run.compile_cache_dir={tmp_path}/runs/compile_cache "
        "--config.run.init_weights=false --config.data.num_epochs=1 "
        f"--workdir={tmp_path}/runs/sst-2-random"
    )
    assert command.product == runs[1].workdir / "report.json"


def test_an_override_may_be_of_one_task(tmp_path: Path) -> None:
    own = {"rte:data.num_epochs": "3", "sst-2:seed": "7", "mrpc:seed": "8"}
    sst2, rte = (str(run.job.commands[0]) for run in planned(tmp_path, Start.RANDOM, **own))
    assert "--config.data.num_epochs=1 --config.seed=7 --workdir" in sst2
    assert "--config.data.num_epochs=3 --workdir" in rte
    with pytest.raises(InputError, match=r"--override=sst:seed: there is no task 'sst'; did you"):
        planned(tmp_path, Start.RANDOM, **{"sst:seed": "1"})


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
def test_what_was_done_is_compared_with_what_is_asked_for(tmp_path: Path) -> None:
    """A run whose steps were counted from its epochs, and one that is not done; rows of both were
    cut to what the model reads."""
    with pytest.raises(InputError, match=r"SST-2: .*max_seq_lenght; did you mean"):
        check_runs(planned(tmp_path, Start.PRETRAINED, data__max_seq_lenght="9"))
    sst2, rte = planned(tmp_path, Start.PRETRAINED)
    assert check_runs([sst2, rte]) == []
    for run in (sst2, rte):
        config = resolve(run).config
        counted = dataclasses.replace(config.optimizer, num_train_steps=7, num_warmup_steps=1)
        run.workdir.mkdir(parents=True)
        shorter = dataclasses.replace(config.data, max_seq_length=64)
        stored = to_json(dataclasses.replace(config, optimizer=counted, data=shorter))
        (run.workdir / "config.json").write_text(stored)
    (sst2.workdir / "report.json").touch()
    assert check_runs([sst2, rte]) == []
    more = planned(tmp_path, Start.PRETRAINED, seeds=5)
    assert check_runs(more) == more[:1]
    searched = planned(tmp_path, Start.PRETRAINED, run__rate_search="first_seed")
    assert check_runs(searched) == searched[:1]
    for changes, message in (
        ({"init_from": "runs/other"}, "fine-tuned from runs/base, not from --init_from=runs/other"),
        ({"data__max_seq_length": "9"}, "another experiment: data.max_seq_length was 64"),
        ({"data__num_epochs": "2"}, "data.num_epochs was 1.0"),
    ):
        with pytest.raises(InputError, match=message):
            check_runs(planned(tmp_path, Start.PRETRAINED, **changes))
    assert (
        check_runs(planned(tmp_path, Start.PRETRAINED, init_from=str(Path("runs/base").resolve())))
        == []
    )


ALONE = {"median_of_other_seeds": None}


def write_report(
    run: GlueRun,
    values: dict[str, float | None],
    baseline: float,
    search: dict[str, Any] | None = None,
) -> None:
    """Write the report of a fine-tuning with two rates, of which the second is better."""
    worse = {"value": 0.5, "learning_rate": 1e-5, "baseline": baseline, "failed": None}
    runs: dict[str, dict[str, Any]] = {"rate_1e-05_seed_1": worse}
    for seed, value in values.items():
        failed = "no" if value is None or value <= baseline else None
        runs[seed] = {"value": value, "learning_rate": 2e-5, "baseline": baseline, "failed": failed}
    rates = [{"learning_rate": 2e-5, "median": 1}, {"learning_rate": 1e-5, "median": 0.5}]
    config = {"task": run.task, "data": {"max_seq_length": 128}}
    content = {"metric": "accuracy", "learning_rates": rates, "runs": runs, "config": config}
    if search is not None:
        content["rate_search"] = search
    for number, seed in enumerate(runs):
        (run.workdir / seed).mkdir(parents=True)
        entries = (
            {"step": 10, "split": "train", "loss": 0.5 + number},
            {"step": 20, "split": "validation", "accuracy": runs[seed]["value"]},
        )
        lines = "".join(json.dumps(entry) + "\n" for entry in entries)
        (run.workdir / seed / "metrics.jsonl").write_text(lines)
    (run.workdir / "report.json").write_text(json.dumps(content))


def test_the_table_has_medians_spreads_and_the_difference(tmp_path: Path) -> None:
    """SST-2: medians 84 and 72, every seed apart (p = 0.1 at three seeds); RTE has no control."""
    sst2, control, rte, rte_control = planned(tmp_path, *Start)
    with pytest.raises(InputError, match="nothing to report"):
        read_results([sst2])
    write_report(sst2, {"a": 0.80, "b": 0.86, "c": 0.84}, 0.51)
    write_report(control, {"a": 0.72, "b": 0.73, "c": 0.50}, 0.51)
    write_report(rte, {"a": 0.6, "b": None}, 0.53)
    (sst2.workdir / "b" / "SST-2.tsv").write_text("index\tprediction\n")
    results = read_results([sst2, control, rte, rte_control])
    change, p_value = difference(results, "sst-2") or (0, 0)
    assert change == pytest.approx(12) and p_value == pytest.approx(0.1)
    assert difference(results, "rte") is None

    base = AlbertConfig(num_hidden_layers=12, hidden_size=768)
    runs = [sst2, control, rte, rte_control]
    text = write_glue_report(tmp_path / "runs", results, base, "the command", runs=runs)
    assert text.endswith("WITHOUT A RESULT: RTE, random (logs/rte-random.log).\n")
    assert (
        "| SST-2 | accuracy | 84.0 (80.0 to 86.0; 3) | 72.0 (50.0 to 73.0; 3, 1 failed) "
        "| +12.0 (p = 0.1) | 51.0 | 90.3 |"
    ) in text
    assert "| RTE | accuracy | 60.0, 1 failed |  |  | 53.0 |  |" in text
    assert "the benchmark's server also wants CoLA.tsv, MRPC.tsv" in text
    with zipfile.ZipFile(tmp_path / "runs" / "submission.zip") as archive:
        assert archive.namelist() == ["SST-2.tsv"]
        assert archive.read("SST-2.tsv") == b"index\tprediction\n"
    assert (tmp_path / "runs" / "scores.png").stat().st_size > 5_000
    content = json.loads((tmp_path / "runs" / "report.json").read_text())
    assert content["results"][0]["scores"] == {"a": 80.0, "b": 86.0, "c": 84.0}


def test_seeds_that_chose_the_rate_and_equal_scores(tmp_path: Path) -> None:
    """RTE: ranks 5.5 5.5 2.5 against 2.5 2.5 2.5. Of 20 divisions into threes, 4 have both 5.5 and
    4 have none: 8 have a sum as far from 10.5 as 13.5 is."""
    runs = sst2, control, rte, rte_control = planned(tmp_path, *Start)
    search = {"values": {"1e-05": 0.5, "2e-05": 0.8}, "median_of_other_seeds": 0.85}
    write_report(sst2, {"a": 0.80, "b": 0.86, "c": 0.84}, 0.51, search)
    write_report(control, {"a": 0.72}, 0.51, {"values": {"1e-05": None}, **ALONE})
    write_report(rte, {"a": 0.6, "b": 0.6, "c": 0.5}, 0.53)
    write_report(rte_control, {"a": 0.5, "b": 0.5, "c": 0.5}, 0.53)
    results = read_results(runs)
    change, p_value = difference(results, "rte") or (0, 0)
    assert change == pytest.approx(10) and p_value == pytest.approx(0.4)
    assert rank_sum_test([6, 7, 8, 9, 10], [1, 2, 3, 4, 5]) == pytest.approx(2 / 252)
    assert rank_sum_test([*range(11, 22)], [*range(11)]) == pytest.approx(8.15e-5, rel=1e-3)
    text = write_glue_report(tmp_path / "runs", results, AlbertConfig(), "the command")
    assert "| average of these 2 of GLUE's 9 tasks |  | 72.0 | 61.0 |  |  |" in text
    assert (
        "no such choice. SST-2, pretrained: 1e-05 50.0, 2e-05 80.0; other seeds 85.0. "
        "SST-2, random: 1e-05 no score."
    ) in text
    content = json.loads((tmp_path / "runs" / "report.json").read_text())
    assert content["averages"] == {"pretrained": pytest.approx(72), "random": pytest.approx(61)}
    assert content["results"][0]["median_of_others"] == 85


def make_page(tmp_path: Path) -> Path:
    """The page of two tasks, of which one has no control, with two seeds each."""
    sst2, control, rte = planned(tmp_path, *Start)[:3]
    write_report(sst2, {"a": 0.80, "b": 0.86}, 0.51)
    write_report(control, {"a": 0.72, "<b>": 0.73}, 0.51)
    write_report(rte, {"a": 0.6, "b": None}, 0.53)
    base = AlbertConfig(num_hidden_layers=12, hidden_size=768)
    write_glue_report(
        tmp_path / "runs", read_results([sst2, control, rte]), base, "the <b> command"
    )
    return tmp_path / "runs/report.html"


def test_the_page_has_table_picture_curves_and_settings(tmp_path: Path) -> None:
    page = make_page(tmp_path).read_text()
    outline = Outline(page)
    assert outline.count("b") == 0
    assert "SST-2accuracy83.0 (80.0 to 86.0; 2)72.5 (72.0 to 73.0; 2)+10.5" in outline.text
    (picture,) = (attributes["src"] for tag, attributes in outline.elements if tag == "img")
    png = base64.b64decode((picture or "").removeprefix("data:image/png;base64,"))
    assert png == (tmp_path / "runs/scores.png").read_bytes()
    titles = [e["aria-label"] for tag, e in outline.elements if tag == "svg"]
    panels = ("loss, train", "accuracy, validation")
    assert titles == [f"{task}: {panel}" for task in ("SST-2", "RTE") for panel in panels]
    lines = json.loads(outline.scripts[1])["lines"]
    assert {line["label"]: line["points"] for line in lines} == {
        "pretrained, a": [[20, 0.8]],
        "pretrained, b": [[20, 0.86]],
        "random, a": [[20, 0.72]],
        "random, <b>": [[20, 0.73]],
    }
    assert [line["color"] == lines[0]["color"] for line in lines] == [True, True, False, False]
    assert [line["label"] for line in json.loads(outline.scripts[3])["lines"]] == ["pretrained"]
    common, different = outline.text.split("Settings of all runs")[1].split("Settings that differ")
    assert "data.max_seq_length128" in common and "task" not in common
    assert "tasksst-2sst-2rte" in different


@pytest.mark.slow
def test_a_browser_shows_the_page(tmp_path: Path) -> None:
    page = make_page(tmp_path)
    page.write_text(page.read_text().replace("</body>", f"{PROBE}</body>"))
    document, console = show(page, tmp_path / "profile")
    assert console == []
    assert document.count("<polyline") == 10
    assert document.count('class="tip"') == 4
