"""Lines of the metrics file are JSON for any reader."""

import json
import math
from pathlib import Path
from typing import NoReturn

from experiments.metrics.metrics_file import METRICS_FILE, append_metrics, read_metrics


def test_numbers_that_are_not_finite_are_null_in_the_file_and_nan_when_read(tmp_path: Path) -> None:
    entry = {"step": 3, "split": "skipped", "loss": math.nan, "grad_norm": math.inf, "batch": 2}
    append_metrics(tmp_path, entry, durably=False)

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(constant)

    written = json.loads((tmp_path / METRICS_FILE).read_text(), parse_constant=refuse)
    assert written == entry | {"loss": None, "grad_norm": None}
    [found] = read_metrics(tmp_path)
    assert math.isnan(found["loss"]) and math.isnan(found["grad_norm"])
    assert (found["step"], found["split"], found["batch"]) == (3, "skipped", 2)
