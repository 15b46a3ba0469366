"""The report of compiled steps: tables with a row for each topology and phase, and advice."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from albert_jax.devices.collectives import Collective
from experiments.benchmarks.report import describe, format_table, rounded
from experiments.compiling.compiled_run import CompiledPhase
from experiments.compiling.prediction import MODEL, Prediction, predict_step, step_operations
from experiments.run.config import ExperimentConfig

_GIB = 2**30


def report_row(compiled: CompiledPhase, config: ExperimentConfig) -> dict[str, Any]:
    """Return the figures of a phase, which are per device except the batch's; None: unknown.

    Args:
        compiled: the phase's step.
        config: the experiment.
    """
    phase, step = compiled.phase, compiled.fitting or compiled.asked
    operations = step_operations(
        config.model,
        config.run.remat,
        rows=phase.global_batch_size,
        devices=compiled.devices,
        generator=config.generator,
        length=phase.data.max_seq_length,
        predictions=phase.data.max_predictions_per_seq,
        pairs=compiled.pairs,
    )
    program, known = compiled.program, compiled.known
    collectives = program.collectives if program else ()
    time: Prediction | None = None
    if program and known and compiled.fitting:
        time = predict_step(operations, program.bytes_between_matmuls, collectives, known)
    seconds = time and time.total
    positions = phase.global_batch_size * phase.data.max_seq_length
    return {
        "topology": str(compiled.topology),
        "devices": compiled.devices,
        "mesh": " x ".join(map(str, compiled.mesh_shape)),
        "steps": phase.end - phase.begin,
        "batch": f"{phase.global_batch_size} x {phase.data.max_seq_length}",
        "micro_batches": step.micro_batches,
        "fits": _format_fit(compiled),
        "gib_needed": _gib(step.needed),
        "gib_usable": _gib(compiled.limit),
        "gflop": rounded(operations.counted / 1e9),
        "gb_between_matmuls": rounded(program.bytes_between_matmuls / 1e9) if program else None,
        "parameters_mb": rounded(compiled.parameters / 1e6),
        "collectives": format_collectives(collectives) if program else None,
        "collective_bytes": count_bytes(collectives) if program else None,
        **{f"{name}_ms": _ms(part) for name, part in zip(_PARTS, time or _UNKNOWN, strict=True)},
        "predicted_ms": _ms(seconds),
        "positions_per_second": rounded(positions / seconds, 3) if seconds else None,
        "fraction_of_peak": (
            rounded(operations.counted / seconds / known.peak_flops, 2)
            if seconds and known
            else None
        ),
        "hours_of_phase": (
            rounded((phase.end - phase.begin) * seconds / 3600, 3) if seconds else None
        ),
        "compile_seconds": rounded(compiled.seconds, 3),
    }


_PARTS = Prediction._fields
_UNKNOWN = (None,) * len(_PARTS)
_SHOWN = (  # fields of a row in the tables for people
    *("topology", "mesh", "batch", "micro_batches", "fits", "gib_needed", "gib_usable", "gflop"),
    *("gb_between_matmuls", "collectives"),
)
_TIMES = (
    *("topology", "batch", *(f"{part}_ms" for part in _PARTS), "predicted_ms"),
    *("positions_per_second", "fraction_of_peak", "hours_of_phase", "compile_seconds"),
)


def format_collectives(collectives: Sequence[Collective]) -> str:
    """Summarize the collectives of a step by axes and kind, in MB of whole arrays.

    Example: ``data: all-reduce 47.3; fsdp: all-gather in loops 31.5``.
    """
    words = []
    for axes, kinds in count_bytes(collectives).items():
        sizes = (f"{kind} {size / 1e6:.3g}" for kind, size in kinds.items())
        words.append(f"{axes}: {', '.join(sizes)}")
    return "; ".join(words) or "none"


def count_bytes(collectives: Sequence[Collective]) -> dict[str, dict[str, int]]:
    """Return the bytes of the collectives' whole arrays in a step, by axes and kind.

    Example: ``{"data": {"all-reduce": 47260000}, "fsdp": {"all-gather in loops": 31500000}}``.
    """
    sizes: dict[str, dict[str, int]] = {}
    for one in sorted(collectives, key=lambda one: (one.axes, one.kind, one.in_loop)):
        kinds = sizes.setdefault(" and ".join(one.axes) or "one device", {})
        kind = f"{one.kind}{' in loops' * one.in_loop}"
        kinds[kind] = kinds.get(kind, 0) + one.bytes_per_step
    return sizes


def format_report(
    compiled: Sequence[CompiledPhase], rows: Sequence[Mapping[str, Any]], made: Mapping[str, Any]
) -> str:
    """Return the report in Markdown.

    Args:
        compiled: the steps.
        rows: the result of `report_row` for each of them.
        made: see `experiments.benchmarks.report.environment`.
    """
    notes = dict.fromkeys(f"- {c.topology}: {c.line}" for c in compiled)
    shown = [
        format_table([{name: row[name] for name in names} for row in rows])
        for names in (_SHOWN, _TIMES)
    ]
    return "\n".join(
        (
            describe(made),
            "Figures of a device and a step; collectives in MB of whole arrays. Nothing was run.\n",
            *(*notes, ""),
            *(shown[0], ""),
            f"Predicted by a model: {MODEL}. No prefetching, evaluation or checkpoint is in it.\n",
            *(shown[1], ""),
            *_advice(compiled),
        )
    )


def format_json(rows: Sequence[Mapping[str, Any]], made: Mapping[str, Any]) -> str:
    """Return all figures as one JSON object."""
    return json.dumps({**made, "model": MODEL, "rows": list(rows)}, indent=2) + "\n"


def _format_fit(compiled: CompiledPhase) -> str:
    if compiled.limit is None:
        return "unknown"
    best, asked = compiled.fitting, compiled.asked
    if best is None:
        return "no"
    return "yes" if best is asked else f"not in {asked.micro_batches} micro-batches"


def _advice(compiled: Sequence[CompiledPhase]) -> list[str]:
    """Return a line of advice for each step that does not fit as it was asked for."""
    lines = []
    for one in compiled:
        asked, best, limit = one.asked, one.fitting, one.limit
        if limit is None or best is asked:
            continue
        rows = f"{one.topology}, {one.phase.global_batch_size} x {one.phase.data.max_seq_length}"
        count = f"in {asked.micro_batches} micro-batches a step needs {_in_gib(asked.needed)}"
        line = f"- {rows}: {count} of {limit / _GIB:.1f} GiB"
        if best is None:
            knobs = "remat=full, fsdp, dtype=bfloat16"
            line += f", and too much in more of them; --config.run.: {knobs}; or shorter rows"
        else:
            smaller = f"--config.run.accumulation_steps={best.micro_batches}"
            line += f"; {smaller} is the smallest that fits (0 finds it); remat and fsdp need less"
        lines.append(line + ".")
    return lines


def _in_gib(size: int | None) -> str:
    return "unknown" if size is None else f"{size / _GIB:.1f}"


def _gib(size: int | None) -> float | None:
    return None if size is None else rounded(size / _GIB, 3)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else rounded(1e3 * seconds, 3)
