"""Text as the tokenizers see it: spaces, compatibility forms, accents and case."""

import unicodedata


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


def strip_combining_marks(text: str) -> str:
    """Deletes the characters that attach to the one before, such as decomposed accents."""
    return "".join(char for char in text if not unicodedata.combining(char))
