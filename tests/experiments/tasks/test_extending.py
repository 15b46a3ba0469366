"""A new fine-tuning task takes one file (`parity_task.py`), a name, and a line in the registry."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny_tasks
from parity_task import PARITY

from albert_jax.devices.mesh import make_mesh
from experiments.cli.exit_codes import ExitCode
from experiments.finetune import finetune
from experiments.prediction.finetuned import finetuned_tasks
from experiments.prediction.inference import put_in_order
from experiments.run import execution
from experiments.tasks.raw_inputs import PredictionOptions, RawInput
from experiments.tasks.registry import TASK_KINDS
from experiments.tasks.task_settings import TaskName


@pytest.fixture
def parity(monkeypatch: pytest.MonkeyPatch) -> TaskName:
    """A member of `TaskName`, and its line in the registry."""
    member: Any = str.__new__(TaskName, "parity")
    member._name_, member._value_ = "PARITY", "parity"
    monkeypatch.setitem(TaskName._value2member_map_, "parity", member)
    monkeypatch.setitem(TASK_KINDS, member, PARITY)  # type: ignore[arg-type]
    return TaskName("parity")


def test_a_task_in_one_file_is_trained_reported_and_predicted(
    parity: TaskName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make_mesh(devices=jax.devices()[:1])
    monkeypatch.setattr(execution, "make_mesh", lambda **_: one)
    monkeypatch.setattr("experiments.prediction.inference.make_mesh", lambda: one)
    records = [
        {"id": str(n), "words": "word0 " * (1 + n % 5), "parity": ("odd", "even")[n % 5 % 2]}
        for n in range(32)
    ]
    file = tmp_path / "examples.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    tokenizer = tiny_tasks.write_tokenizer(tmp_path / "tokenizer")
    data = {"train_file": str(file), "dev_file": str(file)}
    config = tiny_tasks.make_finetuning(
        parity, tokenizer, steps=2, data=data, evaluate_every=2, checkpoint_every=2
    )

    workdir = tmp_path / "run"
    assert finetune(config, workdir) is ExitCode.DONE
    report = json.loads((workdir / "report.json").read_text())
    assert (report["task"], report["metric"], report["step"]) == ("parity", "accuracy", 2)
    assert report["files"] == ["dev.txt"]
    margins = [float(line) for line in (workdir / "dev.txt").read_text().splitlines()]
    labels = ["odd" if margin > 0 else "even" for margin in margins]
    right = [one["parity"] == label for one, label in zip(records, labels, strict=True)]
    assert report["value"] == sum(right) / len(right)

    task = finetuned_tasks()["parity"]
    inputs = [RawInput({"text": one["words"]}, one["id"]) for one in records]
    results = put_in_order(task.predict(inputs, PredictionOptions(str(workdir))), len(inputs))
    assert [result["parity"] for result in results] == labels
    np.testing.assert_allclose([result["margin"] for result in results], margins, atol=1e-5)
    assert len({f"{margin:.4f}" for margin in margins}) == 5, "texts of five lengths"
    assert task.format(results[0]) == f"{records[0]['words']}: {labels[0]}"
