"""Text as the tokenizers see it: spaces, compatibility forms, accents and case."""

import unicodedata

from data_pipeline.tokenizers.alignment import (
    AlignedText,
    align,
    change_each,
    change_form,
    collapse_spaces,
    drop_marks,
    replace,
)


def normalize(text: str, *, lower_case: bool = True, keep_accents: bool = False) -> str:
    """Collapses white space, unifies characters, and by default drops accents and case.

    Two grave accents or two apostrophes, as older corpora write quotation marks, become one double
    quote. Characters become their compatibility decomposition (NFKD), of which combining marks are
    deleted; with `keep_accents` they are composed instead (NFKC), after capitals were lowered. This
    is the text of the released uncased models, and what transformers makes of a text.

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
    # After decomposing, which turns several kinds of spaces and lone accents into spaces.
    return " ".join(text.split())


def normalize_aligned(
    text: str, *, lower_case: bool = True, keep_accents: bool = False
) -> AlignedText:
    """What `normalize` makes, each character with the span of the text that it came from.

    Example: `normalize_aligned("É ½")` is `[("e", 0, 1), (" ", 1, 2), ("1", 2, 3), ("⁄", 2, 3),
    ("2", 2, 3)]`.
    """
    aligned = replace(replace(align(text), "``", '"'), "''", '"')
    if lower_case and keep_accents:
        aligned = change_each(aligned, lower)
    if not text.isascii():
        aligned = change_form(aligned, "NFKC" if keep_accents else "NFKD")
        if not keep_accents:
            aligned = drop_marks(aligned, is_mark)
    if lower_case and not keep_accents:
        aligned = change_each(aligned, lower)
    return collapse_spaces(aligned)


def lower(text: str) -> str:
    """Small letters, each by itself: a capital sigma is σ at the end of a word too."""
    return text.replace("Σ", "σ").lower()  # noqa: RUF001


def is_mark(char: str) -> bool:
    """Whether a character attaches to the one before, as a decomposed accent does."""
    return unicodedata.category(char).startswith("M")
