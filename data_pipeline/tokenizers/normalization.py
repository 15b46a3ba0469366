"""Text normalization: spaces, compatibility forms, accents and case."""

import unicodedata

from data_pipeline.tokenizers.alignment import (
    AlignedText,
    align,
    collapse_spaces,
    drop_marks,
    map_characters,
    normalize_form,
    replace,
)


def normalize(text: str, *, lower_case: bool = True, keep_accents: bool = False) -> str:
    """Collapse white space, unify characters, and by default drop accents and case.

    Two grave accents or two apostrophes, which older corpora use as quotation marks, become one
    double quote. Characters are decomposed (NFKD) and combining marks deleted. With `keep_accents`,
    they are composed instead (NFKC), after lower-casing. This is the normalization of the released
    uncased models and of transformers.

    Example: `normalize("  Ünïted\\u00a0 ``STATES''  ½ ")` is `'united "states" 1⁄2'`.
    """
    text = text.replace("``", '"').replace("''", '"')
    if keep_accents:
        text = lower(text) if lower_case else text
        text = text if text.isascii() else unicodedata.normalize("NFKC", text)
    else:
        if not text.isascii():
            decomposed = unicodedata.normalize("NFKD", text)
            text = "".join(char for char in decomposed if not is_mark(char))
        text = lower(text) if lower_case else text
    # After decomposition, which turns several kinds of spaces and lone accents into spaces.
    return " ".join(text.split())


def normalize_aligned(
    text: str, *, lower_case: bool = True, keep_accents: bool = False
) -> AlignedText:
    """Normalize a text as `normalize` does, and return the span of each character.

    Example: `normalize_aligned("É ½")` is `[("e", 0, 1), (" ", 1, 2), ("1", 2, 3), ("⁄", 2, 3),
    ("2", 2, 3)]`.
    """
    aligned = replace(replace(align(text), "``", '"'), "''", '"')
    if lower_case and keep_accents:
        aligned = map_characters(aligned, lower)
    if not text.isascii():
        aligned = normalize_form(aligned, "NFKC" if keep_accents else "NFKD")
        if not keep_accents:
            aligned = drop_marks(aligned, is_mark)
    if lower_case and not keep_accents:
        aligned = map_characters(aligned, lower)
    return collapse_spaces(aligned)


def lower(text: str) -> str:
    """Lower-case each character by itself: a capital sigma becomes σ at the end of a word too."""
    return text.replace("Σ", "σ").lower()  # noqa: RUF001


def is_mark(char: str) -> bool:
    """Return True if a character combines with the one before, as a decomposed accent does."""
    return unicodedata.category(char).startswith("M")
