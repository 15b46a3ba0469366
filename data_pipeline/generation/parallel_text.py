"""Pairs from two text files that are aligned line by line."""

from pathlib import Path

from data_pipeline.errors import InputError
from data_pipeline.generation.examples import TextPair, make_pair
from data_pipeline.sources.text_files import decode_lines, find_file


def read_parallel_text(sources: Path, targets: Path | None) -> list[TextPair]:
    """Read line n of one file as the source of line n of the other.

    Only a line feed ends a line, together with a carriage return before it; a form feed, a vertical
    tab, U+0085 or U+2028 stays in the line. If both lines are empty, there is no pair; if one is
    empty, see `make_pair`.

    Args:
        sources: a UTF-8 text file, plain or compressed (.gz, .xz, .bz2, .zst).
        targets: likewise; None if there are no targets, as for predictions.

    Returns:
        The pairs in order; their ids are the line numbers, from 0.

    Raises:
        InputError: a file is missing, empty or not UTF-8; the files have different numbers of
            lines; only a target is empty; or there is no pair.

    Example: the lines `A dog.`, (empty), `Snow.` and `Ein Hund.`, (empty), `Schnee.` give
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
