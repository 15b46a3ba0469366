"""Text as the tokenizers see it: spaces, compatibility forms, accents and case."""

import unicodedata

from data_pipeline.alignment import (
    AlignedText,
    align,
    change_each,
    change_form,
    collapse_spaces,
    drop_marks,
    replace,
    text_of,
)


def normalize(text: str, *, lower_case: bool = True, keep_accents: bool = False) -> str:
    """Collapses white space, unifies characters, and by default drops accents and case.

    Two grave accents or two apostrophes, as older corpora write quotation marks, become one double
    quote. Characters become their compatibility decomposition (NFKD), of which combining marks are
    deleted; with `keep_accents` they are composed instead (NFKC). This is the text of the released
    uncased models.

    Example: `normalize("  Ünïted\\u00a0 ``STATES''  ½ ")` is `'united "states" 1⁄2'`.
    """
    text = text.replace("``", '"').replace("''", '"')
    if not text.isascii():
        text = unicodedata.normalize("NFKC" if keep_accents else "NFKD", text)
        if not keep_accents:
            text = strip_combining_marks(text)
    # After decomposing, which turns several kinds of spaces and lone accents into spaces.
    text = " ".join(text.split())
    return text.lower() if lower_case else text


def normalize_aligned(
    text: str, *, lower_case: bool = True, keep_accents: bool = False
) -> AlignedText:
    """What `normalize` makes, each character with the span of the text that it came from.

    Example: `normalize_aligned("É ½")` is `[("e", 0, 1), (" ", 1, 2), ("1", 2, 3), ("⁄", 2, 3),
    ("2", 2, 3)]`.
    """
    aligned = replace(replace(align(text), "``", '"'), "''", '"')
    if not text.isascii():
        aligned = change_form(aligned, "NFKC" if keep_accents else "NFKD")
        if not keep_accents:
            aligned = drop_marks(aligned, lambda char: unicodedata.combining(char) != 0)
    aligned = collapse_spaces(aligned)
    return lower_aligned(aligned) if lower_case else aligned


def lower_aligned(aligned: AlignedText) -> AlignedText:
    """What `str.lower` makes of the whole, where a sigma depends on its place in the word."""
    lowered = text_of(aligned).lower()
    by_itself = change_each(aligned, str.lower)
    return [(char, *spot[1:]) for char, spot in zip(lowered, by_itself, strict=True)]


def strip_combining_marks(text: str) -> str:
    """Deletes the characters that attach to the one before, such as decomposed accents."""
    return "".join(char for char in text if not unicodedata.combining(char))
