"""Samples of filled gaps: held-out texts, and the model's candidates for their hidden tokens."""

import json
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from etils import epath

from albert_jax.input_files import read_json_object, require_fields, shorten
from data_pipeline.errors import InputError
from experiments.metrics.metrics_file import replace
from experiments.pages.document import escape

SAMPLES_FILE = "samples.json"

_log = logging.getLogger(__name__)


class Token(NamedTuple):
    """A token of a sample.

    Attributes:
        text: the token itself, even if it is a gap.
        separate: True if white space precedes it.
        candidates: for a gap, the model's tokens and their probabilities, the likeliest first.
    """

    text: str
    separate: bool
    candidates: Sequence[tuple[str, float]] = ()


Sample = Sequence[Token]


def write_samples(workdir: epath.Path, step: int, samples: Sequence[Sample]) -> None:
    """Write samples of a checkpoint's model into its workdir."""
    content = {"step": step, "samples": samples}
    replace(workdir / SAMPLES_FILE, (json.dumps(content) + "\n").encode())


def read_samples(workdir: epath.Path) -> tuple[int, list[Sample]]:
    """Read the step and the samples of a workdir; none if there is no file of samples.

    A damaged file is ignored with a warning, since the end of the run writes a new one.
    """
    path = workdir / SAMPLES_FILE
    if not path.exists():
        return 0, []
    try:
        content = read_json_object(path, error=InputError)
        require_fields(content, {"step": int, "samples": list}, str(path), error=InputError)
        return content["step"], [_parse_sample(one, str(path)) for one in content["samples"]]
    except InputError as error:
        _log.warning("%s: the page has no samples", error)
        return 0, []


def _parse_sample(stored: Any, place: str) -> Sample:
    require_fields({"sample": stored}, {"sample": list}, place, error=InputError)
    return [_parse_token(token, place) for token in stored]


def _parse_token(stored: Any, place: str) -> Token:
    match stored:
        case [str(text), bool(separate), list(candidates)]:
            if all(map(_is_candidate, candidates)):
                return Token(text, separate, [(name, chance) for name, chance in candidates])
    raise InputError(f"{place}: {shorten(stored)} is no token of a sample")


def _is_candidate(stored: Any) -> bool:
    match stored:
        case [str(), int() | float()]:
            return True
    return False


def format_samples(step: int, samples: Sequence[Sample]) -> str:
    """Return samples as HTML: each gap shows its likeliest candidate, and all of them in a tip."""
    if not samples:
        return ""
    note = (
        f"Held-out text with gaps, filled by the model of step {step:,}. Underlined green: the "
        "token of the text; red: another one. Point at a gap for what stood there and for the "
        "other candidates."
    )
    texts = ("".join(map(_format_token, sample)).strip() for sample in samples)
    return f"<p>{note}</p>\n" + "\n".join(f'<p class="sample">{text}</p>' for text in texts)


def _format_token(token: Token) -> str:
    space = " " if token.separate else ""
    if not token.candidates:
        return space + escape(token.text)
    best = token.candidates[0][0]
    others = ", ".join(f"{text} {probability:.1%}" for text, probability in token.candidates)
    kind: Any = "right" if best == token.text else "wrong"
    tip = escape(f"here stood: {token.text}; candidates: {others}")
    return f'{space}<span class="gap {kind}" title="{tip}">{escape(best)}</span>'
