"""The report on points that pre-train: held-out metrics, and which rows left the plateau."""

from collections.abc import Sequence
from typing import Any

from albert_jax.config import PositionEncoding
from data_pipeline.config import SentenceObjective
from experiments.evaluation.held_out import pretraining_panels
from experiments.metrics.curves import Panel
from experiments.sweeping.point_kind import Column, ReportForm, RowResult, Spread

# A model whose loss does not rise when the visible words are shuffled has only learned token
# frequencies. All models begin on that plateau; rows on it differ only in when they leave.
PLATEAU_GAP = 0.3  # nats

# Metric, heading, decimals. Fine-tuning tasks follow; metrics that no row has are left out.
_METRICS = (
    ("masked_lm_accuracy", "masked LM %", 2),
    ("masked_lm_loss", "masked-LM loss", 3),
    ("context_gap", "context gap", 3),
    ("detection_recall", "replaced found %", 1),
    ("detection_precision", "of those found %", 1),
    ("replaced_fraction", "replaced %", 1),
    ("sentence_order_accuracy", "SOP %", 1),
    ("next_sentence_accuracy", "NSP %", 1),
    ("sentence_order_probe", "SOP % (probe)", 1),
    ("next_sentence_probe", "NSP % (probe)", 1),
    ("sentence_order_untrained", "SOP % (probe, untrained)", 1),
    ("next_sentence_untrained", "NSP % (probe, untrained)", 1),
)
_RATE = ("rows_per_second", "rows/s", 1)
PAPER_NAMES = {
    **{name: heading for name, heading, _ in _METRICS},
    "squad_v1_exact": "squad_v1 EM",
    "squad_v2_exact": "squad_v2 EM",
}


def _columns(rows: Sequence[RowResult]) -> list[Column]:
    tasks = rows[0].points[0].planned.tasks
    return [
        Column("parameters", lambda row: f"{_one(row).parameters:,}"),
        Column("backbone", lambda row: f"{_one(row).backbone:,}"),
        Column("GFLOP a row", lambda row: f"{_one(row).flops_per_row / 1e9:,.2f}"),
        Column("steps", lambda row: f"{_one(row).steps:,}"),
        Column("seeds", lambda row: f"{row.num_done}"),
        *(
            _metric_column(*metric)
            for metric in (*_METRICS, *((task, task, 1) for task in tasks), _RATE)
            if any(metric[0] in row.metrics for row in rows)
        ),
    ]


def _one(row: RowResult) -> Any:
    """Return a planned point of a row; all points of a row have the same size."""
    return row.points[0].planned


def _metric_column(name: str, heading: str, decimals: int) -> Column:
    return Column(heading, lambda row: _cell(row.metrics.get(name), decimals))


def _cell(spread: Spread | None, decimals: int) -> str:
    """Format the median, lowest and highest of the seeds. Example: ``54.1 (53.8 to 54.3)``."""
    if spread is None:
        return ""
    median, low, high = (f"{value:.{decimals}f}" for value in spread[:3])
    return median if spread.seeds == 1 else f"{median} ({low} to {high})"


def _panels(rows: Sequence[RowResult]) -> Sequence[Panel]:
    del rows
    return pretraining_panels(SentenceObjective.SOP)


def _facts(row: RowResult) -> dict[str, Any]:
    one = _one(row)
    return {
        "parameters": one.parameters,
        "backbone": one.backbone,
        "flops_per_row": one.flops_per_row,
        "steps": one.steps,
        "left_plateau": _left_plateau(row),
    }


def _left_plateau(row: RowResult) -> bool:
    """Return True if every seed learned more than token frequencies.

    Without position encodings the order of the words has no effect, so there is no gap to judge by.
    """
    if _one(row).config.model.position_encoding is PositionEncoding.NONE:
        return True
    gap = row.metrics.get("context_gap")
    return gap is not None and gap.lowest >= PLATEAU_GAP


def _remarks(row: RowResult) -> list[str]:
    if not row.metrics or _left_plateau(row):
        return []
    return [
        f"- {row.row.name} did not leave the plateau (context gap under {PLATEAU_GAP} "
        "nats): its metrics reflect token frequencies only."
    ]


PRETRAINING_REPORT = ReportForm(
    columns=_columns,
    panels=_panels,
    facts=_facts,
    is_comparable=_left_plateau,
    remarks=_remarks,
    legend="Medians over the seeds that are done, with the lowest and the highest. Accuracies in "
    "percent, losses in nats; all rows are evaluated on the same held-out pairs, unpacked, "
    "15 % masked in n-grams up to three.",
    no_order="No order to compare: the paper reports none, or rows are still on the plateau.",
)
