"""Pairs of two text files that are aligned line by line."""

from pathlib import Path

from data_pipeline.errors import InputError
from data_pipeline.generation.examples import TextPair, make_pair
from data_pipeline.sources.text_files import decode_lines, find_file


def read_parallel_text(sources: Path, targets: Path | None) -> list[TextPair]:
    """Read line n of one file as the source of line n of the other.

    Only a line feed ends a line (and a carriage return before it belongs to it): a form feed, a
    vertical tab, U+0085 or U+2028 stays inside. Where both lines are empty there is no pair; for a
    single empty line see `make_pair`.

    Args:
        sources: a text of UTF-8, plain or compressed (.gz, .xz, .bz2, .zst).
        targets: likewise; None if there are none, as for predictions.

    Returns:
        The pairs in order; their ids are the numbers of the lines, from 0.

    Raises:
        InputError: a file is missing, empty or not UTF-8, the files differ in their number of
            lines, a target alone is empty, or there is no pair.

    Example: the lines `A dog.`, (empty), `Snow.` and `Ein Hund.`, (empty), `Schnee.` are
    `[TextPair("0", "A dog.", "Ein Hund."), TextPair("2", "Snow.", "Schnee.")]`.
    """
    read = _read_lines(sources)
    if targets is None:
        return [TextPair(str(number), line, None) for number, line in enumerate(read)]
    written = _read_lines(targets)
    if len(read) != len(written):
        raise InputError(
            f"{sources} has {len(read)} lines and {targets} has {len(written)}: line n of one must "
            "belong to line n of the other"
        )
    found = (
        make_pair(str(number), source, target, f"{targets}:{number + 1}")
        for number, (source, target) in enumerate(zip(read, written, strict=True))
    )
    pairs = [pair for pair in found if pair is not None]
    if not pairs:
        raise InputError(f"{sources} and {targets} have nothing but empty lines")
    return pairs


def _read_lines(path: Path) -> list[str]:
    lines = decode_lines(find_file(path))
    return [line.removesuffix("\n").removesuffix("\r") for _, line in lines]
