"""Reports in HTML: everything is in one small file, and no text in it becomes markup."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from etils import epath
from html_pages import PROBE, Outline, show

from experiments.metrics.curves import plot_curves
from experiments.metrics.metrics_file import read_metrics
from experiments.pages import write_run_page
from experiments.pages.charts import thin_out
from experiments.pages.samples import SAMPLES_FILE, Token, write_samples

PANELS = [("loss", "the loss"), ("f1", "F1"), ("absent", "nothing")]
EVIL = "</script><script>alert('1 & 2')</script><b>\0"


def write_files(workdir: Path, entries: list[dict[str, Any]], **config: Any) -> None:
    lines = "".join(json.dumps(entry) + "\n" for entry in entries)
    (workdir / "metrics.jsonl").write_text(lines)
    (workdir / "config.json").write_text(json.dumps(config))


def write_page(workdir: Path) -> str:
    write_run_page(epath.Path(workdir), read_metrics(workdir), PANELS)
    return (workdir / "report.html").read_text()


def make_entries(count: int) -> list[dict[str, Any]]:
    entries = []
    for step in range(10, 10 * count + 1, 10):
        entries.append({"step": step, "split": "train", "time": 1.5, "loss": 1 / step})
        if step % 40 == 0:
            entries.append({"step": step, "split": "validation", "time": 2.5, "f1": step / 7})
    return entries


def test_a_page_has_curves_tables_samples_and_settings(tmp_path: Path) -> None:
    write_files(tmp_path, make_entries(8), seed=7, model={"hidden_act": "gelu"}, run={"fsdp": None})
    gap = Token("cat", True, (("dog", 0.75), ("cat", 0.25)))
    write_samples(epath.Path(tmp_path), 80, [[Token("The", True), gap, Token("s", False)]])
    report = {"splits": {"dev": {"figures": {"f1": 81.25}, "baseline": {"f1": 50.0}}}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    page = write_page(tmp_path)
    outline = Outline(page)
    assert [e["aria-label"] for tag, e in outline.elements if tag == "svg"] == ["the loss", "F1"]
    assert outline.count("polyline") == 2
    loss = json.loads(outline.scripts[0])
    assert loss["lines"][0]["points"] == [
        [s, pytest.approx(1 / s, 1e-5)] for s in range(10, 81, 10)
    ]
    for text in (
        "trainloss0.01250.0125800.110",
        "devf181.2550",
        "model.hidden_actgelu",
        "run.fsdpnone",
    ):
        assert text in outline.text, text
    assert "The dogs" in outline.text
    ((_, shown),) = (e for e in outline.elements if "gap" in (e[1].get("class") or ""))
    assert shown["class"] == "gap wrong"
    assert shown["title"] == "here stood: cat; candidates: dog 75.0%, cat 25.0%"
    ticks = re.findall(r'text-anchor="middle">([^<]+)<', page)
    assert ticks == ["20", "40", "60", "80", "step", *["40", "50", "60", "70", "80"], "step"]
    assert write_page(tmp_path) == page  # the same for the same files


@pytest.mark.parametrize(
    "samples",
    [
        b"",
        b"\0\0",
        b'{"step": 80}',
        b'{"step": 80, "samples": [7]}',
        b'{"step": 80, "samples": [[["cat", true]]]}',
        b'{"step": 80, "samples": [[["cat", true, [["dog"]]]]]}',
    ],
)
def test_damaged_samples_are_left_out_with_a_warning(
    tmp_path: Path, samples: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    write_files(tmp_path, make_entries(8), seed=7)
    (tmp_path / SAMPLES_FILE).write_bytes(samples)
    assert "Filled gaps" not in Outline(write_page(tmp_path)).text
    assert SAMPLES_FILE in caplog.text and "the page has no samples" in caplog.text


def test_nothing_that_a_run_holds_is_markup(tmp_path: Path) -> None:
    workdir = tmp_path / "<i>&"
    workdir.mkdir()
    entries: list[dict[str, Any]] = [
        {"step": 1, "split": "validation", EVIL: 1.0, "loss": math.nan},
        {"step": 2, "split": "validation", EVIL: 1.0, "loss": 2.0},
    ]
    write_files(workdir, entries, **{EVIL: EVIL})
    gap = Token(EVIL, True, ((EVIL, 0.5), (EVIL, 0.5)))
    write_samples(epath.Path(workdir), 2, [[Token(EVIL, True), gap]])
    PANELS.append((EVIL, EVIL))
    try:
        outline = Outline(write_page(workdir))
    finally:
        PANELS.pop()
    assert (outline.count("b"), outline.count("i")) == (0, 2)  # marks of the two legends
    assert outline.count("script") == 3
    charts = [json.loads(script) for script in outline.scripts[:2]]
    assert charts[0]["lines"][0]["points"] == [[2, 2.0]]  # what is not finite is left out
    assert outline.text.count("alert('1 & 2')") >= 5


def test_a_long_run_has_a_light_page_without_a_network(tmp_path: Path) -> None:
    write_files(tmp_path, make_entries(20_000), seed=7)
    page = write_page(tmp_path)
    assert len(page) < 300_000
    assert re.findall(r"https?:|src=|@import|url\(", page) == []
    assert [e.get("href") for tag, e in Outline(page).elements if tag == "link"] == ["data:,"]


def test_thinned_lines_keep_their_extremes() -> None:
    assert thin_out([(1, 5.0), (2, 9.0), (3, 1.0), (4, 4.0)], most=2) == [(2, 9.0), (3, 1.0)]
    spikes = [(step, 99.0 if step == 4321 else math.sin(step / 999)) for step in range(10_000)]
    kept = thin_out(spikes)
    assert (4321, 99.0) in kept
    assert kept == sorted(kept) and len(kept) <= 600


def test_a_picture_has_no_empty_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Any] = []
    monkeypatch.setattr("experiments.metrics.curves.save_figure", lambda f, _: figures.append(f))
    plot_curves(make_entries(8), tmp_path / "curves.png", PANELS, title="run")
    (figure,) = figures
    assert [axes.get_title() for axes in figure.axes] == ["the loss", "F1"]
    for axes in figure.axes:
        ticks = axes.get_xticks()
        assert (ticks == ticks.round()).all()
        assert len(axes.lines) == 1
    assert figure.get_suptitle() == "run"
    assert not (tmp_path / SAMPLES_FILE).exists()


@pytest.mark.slow
def test_a_browser_shows_curves_and_reads_them_out(tmp_path: Path) -> None:
    write_files(tmp_path, make_entries(8), seed=7)
    write_samples(epath.Path(tmp_path), 80, [[Token("cat", True, (("dog", 0.75),))]])
    page = tmp_path / "probe.html"
    page.write_text(write_page(tmp_path).replace("</body>", f"{PROBE}</body>"))
    document, console = show(page, tmp_path / "profile")
    assert console == []
    assert document.count("<polyline") == 2
    tips = re.findall(r'<div class="tip"[^>]*>(.*?)</div></div>', document)
    assert [re.sub("<[^>]+>", " ", tip).split() for tip in tips] == [
        ["step", "60", "train", "0.016667"],
        ["step", "80", "validation", "11.429"],
    ]


@pytest.mark.slow
def test_the_probe_sees_what_fails(tmp_path: Path) -> None:
    page = tmp_path / "broken.html"
    page.write_text("<body><script>nothing.there</script></body>")
    _, console = show(page, tmp_path / "profile")
    assert any("nothing is not defined" in line for line in console)
